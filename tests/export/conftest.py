"""The small timm model of tests/api."""

from tests.api.conftest import backbone  # noqa: F401
