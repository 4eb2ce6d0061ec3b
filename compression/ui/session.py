"""What one visitor has chosen and made: small, immutable, kept in the visitor's own state.

Models are not in here but in the server's store; a session holds their keys.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compression.ui.plan import Plan


@dataclass(frozen=True)
class Session:
    """start: key of the dense model; source: `sample` or `full`, the images that are measured on.

    made: keys of this visit's variants, oldest first.

    cut: the variant as pruning left it; pruned: the latest after it (recalibrated, fine-tuned);
    quantized: the latest quantized one, and unquantized what it was made from. plan: what a goal
    for the file foretold, where `cut` was pruned by it. latency: what this visit measured, key ->
    Latency rows.
    """

    start: str
    source: str = "sample"
    made: tuple[str, ...] = ()
    cut: str | None = None
    pruned: str | None = None
    quantized: str | None = None
    unquantized: str | None = None
    plan: "Plan | None" = None
    latency: tuple[tuple[str, Any], ...] = ()

    @property
    def latest(self) -> str | None:
        """The newer one of the pruned and the quantized variant; None where there is neither."""
        keys = [key for key in (self.pruned, self.quantized) if key is not None]
        return max(keys, key=self.made.index, default=None)

    def with_start(self, key: str) -> "Session":
        """Another dense model; what was made from the one before stays in the comparison."""
        return Session(key, self.source, made=self.made, latency=self.latency)

    def with_cut(self, key: str) -> "Session":
        """A newly pruned variant."""
        return replace(self, made=(*self.made, key), cut=key, pruned=key, plan=None)

    def with_plan(self, plan: "Plan") -> "Session":
        """The pruned variant was pruned by this plan."""
        return replace(self, plan=plan)

    def with_pruned(self, key: str) -> "Session":
        """The pruned variant, recovered."""
        return replace(self, made=(*self.made, key), pruned=key)

    def with_quantized(self, key: str, *, before: str | None) -> "Session":
        """A new quantized variant, made from `before`."""
        return replace(self, made=(*self.made, key), quantized=key, unquantized=before)

    def with_latency(self, measured: dict[str, Any]) -> "Session":
        """The visit with latencies measured in one go, which replace earlier ones."""
        return replace(self, latency=tuple(measured.items()))

    def cleared(self) -> "Session":
        """The visit as it began, from the same dense model."""
        return Session(self.start, self.source)
