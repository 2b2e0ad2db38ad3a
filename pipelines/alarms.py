"""What a run does about an alarm: before it begins, while it labels, and when it ends."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.output import NEXT, Session
from pipelines.promise import Reality, metric_of, reality, table_of
from policy.alarm import Nights
from policy.bundle import Bundle
from policy.errors import Alarm, InputError
from policy.manifest import LabelsManifest
from transforms.audit import AuditPlan
from transforms.stages import Engine
from transforms.watch import ALARM, BEGUN, LOOK_SECONDS, OnAlarm, Watch, raise_alarm, read_alarm

_LOG = logging.getLogger("adalabel")

_REMEDY = (
    "The images are probably unlike those that the policy was fitted on: label some of them, "
    "extract and fit again. Or go on with --on-alarm full (the full network for the rest) or "
    "--on-alarm warn."
)


def alarm_before(session: Session[LabelsManifest], on_alarm: OnAlarm) -> Alarm | None:
    """What a run that is to stop raises if an alarm stands in what it goes on with.

    An alarm of the result that stands holds for what is added to it, and not for what replaces it;
    a replacement that one stands against is removed.
    """
    if session.mode == "retry-failed" and read_alarm(session.place):
        session.output.create(ALARM, session.place.read(ALARM, "the alarm"))
    alarm = read_alarm(session.output)
    if alarm is None or on_alarm != "stop":
        return None
    _abandon(session)
    return Alarm(f"{session.place.path}: stopped by an alarm of an earlier run: {_said(alarm)}")


def audit_plan(bundle: Bundle, engine: Engine, fraction: float) -> AuditPlan | None:
    """How to audit; None where it is not wanted, or the full network is not at hand."""
    if not fraction or bundle.policy.graph.full not in engine.unpriced.answers:
        return None
    return AuditPlan(fraction, metric_of(bundle))


def check_full(bundle: Bundle, engine: Engine, on_alarm: OnAlarm) -> None:
    """Raise InputError where the full network is to be run after an alarm and is not at hand."""
    full = bundle.policy.graph.full
    if on_alarm == "full" and full not in engine.unpriced.answers:
        raise InputError(
            f"--on-alarm full: the policy does not name the full network {full!r} among its "
            "networks; fit again, or choose warn or stop"
        )


def watch_of(
    bundle: Bundle,
    on_alarm: OnAlarm,
    audit: AuditPlan | None,
    records: str,
    nights: Nights = None,
) -> Watch:
    """What workers watch for; `records` is the path that `keep_records` gave."""
    known = bundle.evidence.reference if bundle.evidence else None
    table = table_of(known) if audit and known else None
    fraction = audit.fraction if audit else 0.0
    return Watch(table, on_alarm, records, fraction, LOOK_SECONDS, nights)


def compared(
    session: Session[LabelsManifest],
    bundle: Bundle,
    statistics: Mapping[str, Mapping[str, Any]],
    left: Mapping[str, int],
    nights: Nights = None,
) -> Reality:
    """Compare what is done with the promise, and put an alarm down in the output if one is due.

    `left` are the records of the shards that were not begun; `nights` came before.
    """
    session.output.delete_folder(BEGUN)
    alarm = read_alarm(session.output)
    found, verdict = reality(bundle, statistics, nights)
    if alarm is None and verdict is not None and verdict.alarm:
        alarm = raise_alarm(session.output, verdict)
    return replace(found, alarm=alarm, not_begun=len(left), records_not_begun=sum(left.values()))


def is_part_of_a_replacement(session: Session[LabelsManifest], found: Reality) -> bool:
    """Whether a result that stands would be replaced by less than was asked for."""
    return bool(found.not_begun and session.mode != "resume" and session.known is not None)


def end(session: Session[LabelsManifest], on_alarm: OnAlarm, found: Reality) -> None:
    """Say that there is an alarm; raises Alarm if the run is to stop."""
    if found.alarm is None:
        return
    where, left = session.place.path, ""
    if found.not_begun:
        left = f" {found.not_begun} shards with {found.records_not_begun} records were not begun."
    if on_alarm != "stop":
        _LOG.warning("%s: alarm: %s", where, _said(found.alarm))
        return
    done = " What is done stays done."
    if is_part_of_a_replacement(session, found):
        _abandon(session)
        done = " The result that stood before is untouched."
    raise Alarm(f"{where}: {_said(found.alarm)}{left}{done}")


def _said(alarm: str) -> str:
    return f"{alarm}. {_REMEDY}"


def _abandon(session: Session[LabelsManifest]) -> None:
    """Remove a result in the making; the next run begins it again."""
    if session.mode != "resume":
        session.place.delete_folder(NEXT)
