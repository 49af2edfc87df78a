"""The adapters of one model: one object an adapter, one owner a site, and the hooks that add them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pear_cli.adapters.adapter import Adapter, Position
from pear_cli.adapters.host import Host
from pear_cli.adapters.method import Method
from pear_cli.backbone import batch_norm
from pear_cli.backbone.changes import evaluating
from pear_cli.backbone.sites import find, heads_reader
from pear_cli.backbone.widths import Left, Side, Widths
from pear_cli.errors import ConfigError, TrainingError

Owners = Mapping[str, str | None]


class Adaptation(nn.Module):
    """All that a method adds to one frozen backbone.

    A new adaptation has an adapter of its own at every site, and does nothing before `attach`. Sharing
    replaces owners; a shared adapter stays one object, which serves at several positions.

    Args:
        model: a frozen timm model.
        method: what to attach, and where.

    Attributes:
        hosts: the modules of the model that are adapted.
        record: what else is known of the adapted model; who made it knows what.
    """

    def __init__(self, model: nn.Module, method: Method) -> None:
        super().__init__()
        self.method = method
        self.sites = tuple(method.place(site) for site in find(model, method.slots)) if method.slots else ()
        self.banks = nn.ParameterDict()
        self.silent: dict[str, tuple[int, ...]] = {}
        self.positions = nn.ModuleDict()
        for site in self.sites:
            if site.rows is not None and method.convolutions:
                raise ConfigError(
                    f"method.slots: {site.name} is a part of {site.module}; {type(method).__name__} takes "
                    "whole layers, such as attn.qkv"
                )
            if site.tap is not None and not method.convolutions:
                raise ConfigError(
                    f"method.slots: {site.name} is a convolution, which {type(method).__name__} cannot "
                    "adapt; method=splora and method=sppara can"
                )
            banks = {name: self._bank(name, *bank) for name, bank in method.banks(site).items()}
            adapter = Adapter(method, site, banks)
            self.positions[_key(site.name)] = Position(site, model.get_submodule(site.module), adapter)
        self.hosts = [Host(*path, self.at(*names)) for path, names in self._by_module().items()]
        self.handles: list[RemovableHandle] = []
        self.still: list[nn.Module] = []
        self.record: object = None

    def attach(self, model: nn.Module) -> "Adaptation":
        """Let the adapters work in a model, which gets this adaptation as its submodule `adaptation`."""
        for host in self.hosts:
            self.handles += host.attach(model)
        self.still = [] if batch_norm.learns(model) else list(batch_norm.norms(model).values())
        model.add_module("adaptation", self)
        return self.train(model.training)

    def detach(self, model: nn.Module) -> None:
        """Take the adapters and their hooks from a model again; other hooks stay."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.still = [], []
        del model.adaptation

    def train(self, mode: bool = True) -> "Adaptation":
        """As of any module; and of the model that it is attached to, frozen BatchNorms stay in eval mode."""
        for norm in self.still:
            norm.eval()
        return super().train(mode)

    def _bank(self, name: str, bank: str, shape: tuple[int, ...]) -> nn.Parameter:
        """The bank of that name; a new one where there is none yet."""
        if _key(bank) not in self.banks:
            new = nn.Parameter(torch.empty(shape))
            self.method.initialise_bank(name, new.data)
            self.banks[_key(bank)] = new
        found = self.banks[_key(bank)]
        assert isinstance(found, nn.Parameter)
        assert found.shape == shape
        return found

    def at(self, *names: str) -> list[Position]:
        """The positions of the named sites."""
        return [self.positions[_key(name)] for name in names]  # type: ignore[misc]

    def each(self) -> list[Position]:
        """Every position, by block, then slot."""
        return self.at(*(site.name for site in self.sites))

    def _by_module(self) -> dict[tuple[str, str], list[str]]:
        modules: dict[tuple[str, str], list[str]] = {}
        for site in self.sites:
            modules.setdefault((site.module, site.reads), []).append(site.name)
        return modules

    def adapters(self) -> dict[str, Adapter]:
        """The unique trained adapters, by the name of their home site."""
        return {p.owner.site.name: p.owner for p in self.each() if p.owner is not None}

    def owners(self) -> dict[str, str | None]:
        """The share map: the home of the adapter that serves at each site, None where none does."""
        return {p.site.name: p.owner.site.name if p.owner is not None else None for p in self.each()}

    def served(self) -> dict[str, int]:
        """How many sites each adapter serves."""
        owners = list(self.owners().values())
        return {home: owners.count(home) for home in self.adapters()}

    def share(self, owners: Owners) -> None:
        """Let `owners[site]` serve at every site; adapters that own no site are gone."""
        adapters = self.adapters()
        for position in self.each():
            home = owners[position.site.name]
            position.owner = None if home is None else adapters[home]
        used = self._used()
        for name in [name for name, bank in self.banks.items() if id(bank) not in used]:
            del self.banks[name]

    def _used(self) -> set[int]:
        """The banks that some adapter holds, by `id`."""
        return {id(bank) for adapter in self.adapters().values() for bank in adapter.banks.values()}

    def keep(self, knowledge: Mapping[str, Adapter], beta: float, learn: bool) -> None:
        """Add what the pruned adapters knew at the sites of `knowledge`, weighted by `beta`."""
        for position in self.at(*knowledge):
            position.knowledge = knowledge[position.site.name]
            device = next(position.knowledge.parameters()).device
            position.register_parameter("beta", nn.Parameter(torch.tensor(beta, device=device), learn))

    def left(self, widths: Widths) -> dict[str, dict[str, Left]]:
        """What narrowing the backbone leaves of each adapter's parameters: by home site and name."""
        found: dict[str, dict[str, Left]] = {}
        for home, adapter in self.adapters().items():
            kept = widths.kept.get(adapter.site.module, {})
            for name, _ in adapter.named_parameters():
                sides = zip((Side.out, Side.read), self.method.sides(name), strict=True)
                dims = {d: kept[s].nonzero()[:, 0] for s, d in sides if d is not None and s in kept}
                if dims:
                    found.setdefault(home, {})[name] = dims
        return found

    def silence(self, model: nn.Module, attention: str, heads: Sequence[int]) -> None:
        """Switch off the attention output of some heads, before the projection that mixes them.

        Raises:
            ConfigError: a model in which they cannot be told apart.
        """
        reader = heads_reader(model, attention)
        count = model.get_submodule(attention).num_heads
        assert isinstance(count, int)
        mask = torch.ones(count, reader.in_features // count, device=reader.weight.device)  # H, Dh
        mask[list(heads)] = 0
        name = f"silent/{_key(attention)}"
        self.register_buffer(name, mask.flatten(), persistent=False)
        self.silent[attention] = tuple(heads)
        self.handles.append(reader.register_forward_pre_hook(partial(self._mask, name)))

    def silenced(self, attention: str) -> Tensor:
        """What multiplies the channels (C) that the heads of an attention write: 0 or 1."""
        return self.get_buffer(f"silent/{_key(attention)}")

    def _mask(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] * self.get_buffer(name), *args[1:])

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, each tensor once: the trained parameters, and what adapters gather."""
        gathered = {
            f"{home}.{name}": adapter.get_buffer(name)
            for home, adapter in self.adapters().items()
            for name in self.method.buffers(adapter.site)
        }
        return {name: tensor.detach() for name, tensor in (self.trained() | gathered).items()}

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters, each once.

        They are named `<home site>.<parameter>`, `bank.<bank>`, and, where it is learned, `<site>.beta`.
        """
        used = self._used()
        banks = {f"bank.{n.replace('/', '.')}": b for n, b in self.banks.items() if id(b) in used}
        named = {f"{h}.{n}": p for h, a in self.adapters().items() for n, p in a.named_parameters()}
        betas = {f"{p.site.name}.beta": p.beta for p in self.each() if isinstance(p.beta, nn.Parameter)}
        return named | banks | {name: beta for name, beta in betas.items() if beta.requires_grad}

    @torch.inference_mode()
    def check_called_by(self, model: nn.Module, size: int) -> None:
        """Raise TrainingError unless a forward pass calls every host; some models go past a module.

        Args:
            model: the model that the adapters are attached to.
            size: side of its input, in pixels.
        """
        with evaluating(model):
            model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
        silent = [host.path for host in self.hosts if not host.called]
        if silent:
            raise TrainingError(
                f"the model never calls {silent[0]}"
                + (f" and {len(silent) - 1} more" if len(silent) > 1 else "")
                + ": adapters there would do nothing; choose other method.slots"
            )


def _key(name: str) -> str:
    """A site's name as a ModuleDict takes it."""
    return name.replace(".", "/")
