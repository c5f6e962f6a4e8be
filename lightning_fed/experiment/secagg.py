"""How updates are added up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lightning_fed.checks import in_range, literals, positive
from lightning_fed.errors import InputError
from lightning_fed.experiment.federation import Federation
from lightning_fed.secagg.errors import UnsafeParametersError
from lightning_fed.secagg.parameters import (
    SMALLEST_COHORT,
    Assumption,
    Parameters,
    choose,
    objection,
    rates_that_hold,
    unchecked,
)

MOST_SHARDS = 1024


@dataclass(frozen=True)
class SecAgg:
    """How the hospitals' updates are added up.

    Args:
        protocol: `plain`: the server sees every update. `secagg_plus`: only the sum of the survivors (Bell et al.
            2020). `additive`: only the sum, and no sum at all if one hospital is missing (as PriMIA does).
        degree: neighbours of each hospital; null follows the rule (all below 16 hospitals).
        threshold: shares that open a secret; null follows the rule.
        adversary_rate, dropout_rate: shares of the hospitals that may collude, that may drop out.
        server: `semi_malicious` may lie about who is alive, `semi_honest` may not.
        allow_unsafe: run with a degree and threshold that the rule refuses, with a warning in the records.
        min_survivors: the fewest hospitals whose sum is opened; null takes the threshold.
        rounds_per_setup: rounds that one exchange of keys serves, each with keys of its own.
        clip: greatest magnitude of an update's coordinate; what is beyond is cut and counted.
        bits: of one quantised coordinate, 4 to 25; the sum takes the smallest ring that holds all hospitals.
        max_weight: the most images of one hospital that a vector can carry; null takes the largest hospital's.
        shards: aggregator processes, each with a slice of the vector; null goes by its length and the cluster.
        identities: the hospitals' Ed25519 public keys in hexadecimal, pinned; empty makes new ones for the run.
        stage_timeout: seconds that the server waits for the answers to one message of the protocol; hospitals
            that answer later are lost at that stage.
    """

    protocol: Literal["plain", "secagg_plus", "additive"] = "plain"
    degree: int | None = None
    threshold: int | None = None
    adversary_rate: float = 0.1
    dropout_rate: float = 0.1
    server: Literal["semi_malicious", "semi_honest"] = "semi_malicious"
    allow_unsafe: bool = False
    min_survivors: int | None = None
    rounds_per_setup: int = 1
    clip: float = 4.0
    bits: int = 20
    max_weight: int | None = None
    shards: int | None = None
    identities: list[str] = field(default_factory=list)
    stage_timeout: float = 600.0

    def __post_init__(self) -> None:
        literals("secagg", self)
        positive("secagg", stage_timeout=self.stage_timeout)
        positive("secagg", degree=self.degree, threshold=self.threshold, min_survivors=self.min_survivors)
        positive("secagg", rounds_per_setup=self.rounds_per_setup, max_weight=self.max_weight)
        positive("secagg", shards=self.shards)
        in_range("secagg", 1, MOST_SHARDS, shards=self.shards or 1)
        in_range("secagg", 0, 0.9, adversary_rate=self.adversary_rate, dropout_rate=self.dropout_rate)
        in_range("secagg", 4, 25, bits=self.bits)
        in_range("secagg", 1e-6, 1e6, clip=self.clip)
        if any(len(key) != 64 or set(key) - set("0123456789abcdef") for key in self.identities):
            raise InputError("secagg.identities: each is 64 hexadecimal digits; leave it out to have them made")

    @property
    def masked(self) -> bool:
        """Whether a vector leaves its hospital under masks, so that a round lost cannot be done again alone."""
        return self.protocol == "secagg_plus"

    def assumption(self, federation: Federation) -> Assumption:
        """The rates and the server that the parameters must hold against; the cohort is the adversary's choice."""
        return Assumption(self.adversary_rate, self.dropout_rate, self.server, federation.hospitals)

    def parameters(self, federation: Federation) -> Parameters:
        """Degree and threshold of a session.

        Raises:
            InputError: they do not hold at the stated rates, with the nearest that do.
        """
        decide = unchecked if self.allow_unsafe else choose
        try:
            return decide(federation.cohort_size, self.assumption(federation), self.degree, self.threshold)
        except UnsafeParametersError as error:
            raise InputError(f"secagg: {error}") from error

    def least_survivors(self, federation: Federation) -> int:
        """The fewest hospitals whose sum any of them helps to open."""
        threshold = self.parameters(federation).threshold
        return max(self.min_survivors or threshold, threshold, SMALLEST_COHORT)

    def warning(self, federation: Federation) -> str | None:
        """What is wrong with parameters that run by `allow_unsafe`; None where nothing is."""
        parameters = self.parameters(federation)
        reason = objection(parameters, self.assumption(federation))
        if reason is None:
            return None
        return (
            f"secagg.allow_unsafe: degree {parameters.degree}, threshold {parameters.threshold}: {reason}; "
            f"the choice {rates_that_hold(parameters)}"
        )
