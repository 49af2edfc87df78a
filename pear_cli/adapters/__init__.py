"""Adapters: the small trainable parts beside a frozen backbone, one file a method."""
