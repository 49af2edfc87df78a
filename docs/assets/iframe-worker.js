// Browsers start no workers from a file. There, the search of a page that was opened from one runs in a hidden frame,
// which hears and says the same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const inside = frame.contentWindow
      this.inside = inside
      this.started = new Promise(resolve => {
        const load = source => new Promise(done => {
          const script = inside.document.createElement("script")
          script.src = source
          script.onload = done
          inside.document.head.appendChild(script)
        })
        inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
        inside.importScripts = (...sources) => sources.reduce((last, one) => last.then(() => load(one)), Promise.resolve())
        load(url).then(resolve)
      })
    }

    postMessage(data) {
      this.started.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {}
  }
}
