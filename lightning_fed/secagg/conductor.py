"""The order of the stages: what the server asks, whom, and what it does with those that do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import Directory
from lightning_fed.secagg.messages import Terms
from lightning_fed.secagg.server import AdvertiseStage, Session, Unmasking, open_session

STAGES = ("before_keys", "after_keys", "after_shares", "after_masked_input", "at_unmasking")


@dataclass(frozen=True)
class Refusal:
    """A hospital's no to a message, with its reason."""

    hospital: int
    reason: str


Ask = Callable[[str, Mapping[int, Any]], Mapping[int, Any]]
"""Deliver a message to each hospital's `Client` method of that name; what came back, or a `Refusal`, by hospital.

Hospitals that are gone are simply not in it.
"""


class Conductor:
    """Takes a federation's hospitals through the protocol by a function that reaches them.

    Args:
        terms: of the experiment. directory: pinned identities. ask: reaches the hospitals.

    Attributes:
        lost: the stage at which each hospital was lost, of those lost since the last set-up or round.
        refusals: the reasons of those that said no, or whose message the server refused.
    """

    def __init__(self, terms: Terms, directory: Directory, ask: Ask) -> None:
        self.terms, self.directory, self.ask = terms, directory, ask
        self.lost: dict[int, str] = {}
        self.refusals: list[Refusal] = []

    def set_up(self, cohort: Iterable[int], first_round: int, rounds: int = 1, attempt: int = 1) -> Session:
        """Advertise and share keys for some rounds.

        Raises:
            RoundAbortedError: too few hospitals are left.
        """
        self.lost, self.refusals = {}, []
        opening = open_session(self.terms, cohort, first_round, rounds, attempt)
        advertise = AdvertiseStage(self.terms, opening, self.directory)
        keys = self._collect(
            "advertise", dict.fromkeys(opening.cohort, opening), lambda _, sent: advertise.add(sent), STAGES[0]
        )
        share = advertise.close()
        sharers = self._collect(
            "share_keys", {hospital: share.book(hospital) for hospital in keys}, share.add, STAGES[1]
        )
        session = share.close()
        self._collect(
            "receive", {hospital: session.deal(hospital) for hospital in sharers}, lambda *_: None, STAGES[2]
        )
        return session

    def open(self, session: Session, round: int, uploaded: Iterable[int]) -> Unmasking:
        """After the masked vectors of a round: who is in the sum, and what opens it.

        Raises:
            RoundAbortedError: too few hospitals are left, or their shares do not fit.
        """
        uploaded = set(uploaded)
        self.lost.update({hospital: STAGES[2] for hospital in session.sharers if hospital not in uploaded})
        sign = session.survivors(round, uploaded)
        self._collect(
            "sign",
            dict.fromkeys(sign.listed.survivors, sign.listed),
            lambda _, sent: sign.add(sent),
            STAGES[3],
        )
        unmask = sign.close()
        self._collect(
            "unmask",
            {hospital: unmask.request(hospital) for hospital in unmask.asked},
            lambda _, sent: unmask.add(sent),
            STAGES[4],
        )
        return unmask.close()

    def _collect(
        self, stage: str, messages: Mapping[int, Any], take: Callable[[int, Any], None], lost_at: str
    ) -> list[int]:
        """Ask all, take what came back, and note those of whom nothing did."""
        answers = self.ask(stage, messages)
        taken = []
        for hospital in messages:
            answer = answers.get(hospital)
            if hospital not in answers:
                self.lost[hospital] = lost_at
                continue
            if not isinstance(answer, Refusal):
                try:
                    take(hospital, answer)
                    taken.append(hospital)
                    continue
                except ProtocolError as error:
                    answer = Refusal(hospital, str(error))
            self.refusals.append(answer)
            self.lost[hospital] = lost_at
        return taken


def refuse_politely(hospital: int, call: Callable[[], Any]) -> Any:
    """What a hospital's client answers, or its refusal as a value that can travel."""
    try:
        return call()
    except ProtocolError as error:
        return Refusal(hospital, str(error))
