"""What a record that is not the model's may be: each alternative is put beside it, and the one that fits is named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sampler.checks.scoring.named import Named
from sampler.checks.steps.evidence import Evidence
from sampler.checks.steps.precision import SAID, Precision
from sampler.checks.steps.teacher import Forced, distance, predicted
from sampler.engines.base import Predicts
from sampler.requests import Batch, Context, Logits
from sampler.stages import ALL_STAGES

LEAST_SHARED = 4
"""Steps that an alternative must explain."""


@dataclass(frozen=True)
class Suspect:
    """A run whose record differs from the model, the other compared runs, and the tolerance."""

    evidence: Evidence
    model: Predicts
    run: Forced
    others: Sequence[Forced]
    precision: Precision

    def equal(self, left: Logits, right: Logits) -> bool:
        """Whether two arrays (T, rows, V) are the same distributions at every step, and there are enough of them."""
        if left.shape != right.shape or len(left) < min(LEAST_SHARED, len(self.run.recorded)) or not len(left):
            return False
        found = distance(left, right)
        return self.precision.covers(found)

    @property
    def batch(self) -> Batch:
        """The model's rows with their histories, as the chain gets them."""
        run, request = self.run, self.evidence.requests[self.run.request]
        steps = list(range(len(run.model)))
        prefix = self.evidence.prefix
        histories = [[*prefix, *run.tokens[:step]] for step in steps]
        uniforms = np.array([request.uniform(step) for step in steps]) if request.uniform else None
        lengths, places = (np.array(values, dtype=np.int64) for values in ([len(prefix)] * len(steps), steps))
        place = Context(lengths, places, self.evidence.engine.info.eos_ids, uniforms)
        uncond = run.model[:, 1] if run.model.shape[1] == 2 else None
        return Batch(run.model[:, 0], histories, (request.config,) * len(steps), uncond, place)


def explained(suspect: Suspect) -> Named | None:
    """The first alternative that equals the record at every step."""
    run = suspect.run
    if (run.recorded == run.recorded[..., :1]).all():
        return Named("cache", "all recorded logits are equal, as in a buffer that was never written")
    for named, expected, recorded in _alternatives(suspect):
        if suspect.equal(recorded, expected):
            return named
    if SAID["bfloat16"].covers(run.distance):
        return Named("precision", "it is as far from the model as lower precision moves it")
    return None


def _alternatives(suspect: Suspect) -> Iterator[tuple[Named, Logits, Logits]]:
    """What the record may be: a name, the expected rows, and the recorded rows beside them."""
    run = suspect.run
    recorded, model = run.recorded, run.model
    yield from _rows(recorded, model)
    yield from _stages(suspect)
    all_steps = np.concatenate([model, run.further])
    yield Named("position", "it is one step late: each row is that of the step before"), model[:-1], recorded[1:]
    ahead = all_steps[1 : len(recorded) + 1]
    yield Named("position", "it is one step ahead: each row is that of the next step"), ahead, recorded[: len(ahead)]
    if len(run.further):
        text = f"it has the last {len(recorded)} steps of the run, not the first"
        yield Named("position", text), all_steps[-len(recorded) :], recorded
    for step in (len(all_steps) - 1, 0):
        rows = np.broadcast_to(all_steps[step], recorded.shape)
        yield Named("cache", f"every row is that of step {step}, as in a buffer that is used again"), rows, recorded
    for other in suspect.others:
        if other.request != run.request and other.model.shape[1:] == recorded.shape[1:]:
            count = min(len(other.model), len(recorded))
            yield Named("batch", f"it is that of request {other.request}"), other.model[:count], recorded[:count]
    yield from _other_text(suspect)
    yield from _greedy(suspect)


def _rows(recorded: Logits, model: Logits) -> Iterator[tuple[Named, Logits, Logits]]:
    if recorded.shape[1] == 2:
        yield Named("cfg", "the conditional and the unconditional row are exchanged"), model[:, ::-1], recorded
        yield Named("cfg", "both rows are the conditional one, so that guidance is off"), model[:, [0, 0]], recorded
        yield Named("cfg", "both rows are the unconditional one"), model[:, [1, 1]], recorded


def _stages(suspect: Suspect) -> Iterator[tuple[Named, Logits, Logits]]:
    """The logits after each stage of the order, and after one stage alone, in the first or in every row."""
    run, batch = suspect.run, suspect.batch
    recorded, config = run.recorded, suspect.evidence.requests[run.request].config
    reference, active = suspect.evidence.reference, config.active_stages()
    states = [state for state in reference.evaluate(batch) if state.stage in (*active, "greedy")]
    for state in states:
        stage = "temperature" if state.stage == "greedy" else state.stage
        named = Named(stage, f"it has the scores after {state.stage}, not the logits before the chain")
        after = state.scores.astype(np.float32)[:, None]
        yield named, after, recorded[:, :1]
        if recorded.shape[1] == 2:
            yield named, np.repeat(after, 2, axis=1), recorded
    for stage in ALL_STAGES:
        if stage in active and stage != "cfg":
            alone = batch.with_config(config.without([other for other in ALL_STAGES if other != stage]))
            rows = [replace(alone, logits=row, uncond_logits=None) for row in run.model.transpose(1, 0, 2)]
            after = np.stack([reference.evaluate(row)[-1].scores.astype(np.float32) for row in rows], axis=1)
            yield Named(stage, f"{stage} was applied to it"), after, recorded


def _other_text(suspect: Suspect) -> Iterator[tuple[Named, Logits, Logits]]:
    """The same tokens after the text of another request."""
    run, requests = suspect.run, suspect.evidence.requests
    own, both = requests[run.request], run.recorded.shape[1] == 2
    for index, other in enumerate(requests):
        if other.prompt != own.prompt and any(index == each.request for each in suspect.others):
            rows = predicted(suspect.model, other, run.tokens[: len(run.recorded) - 1], guided=both)
            yield Named("batch", f"it is that of these tokens after the text of request {index}"), rows, run.recorded


def _greedy(suspect: Suspect) -> Iterator[tuple[Named, Logits, Logits]]:
    """The logits along the tokens that the record itself makes most likely, which another run may have drawn."""
    run, evidence = suspect.run, suspect.evidence
    request = evidence.requests[run.request]
    both = run.recorded.shape[1] == 2
    batch, path = suspect.batch, list[int]()
    for step, rows in enumerate(run.recorded):
        row = replace(
            batch.only([step]),
            logits=rows[:1],
            history=[[*evidence.prefix, *path]],
            uncond_logits=rows[1:] if both else None,
        )
        path.append(int(np.argmax(evidence.reference.evaluate(row)[-1].scores)))
    likely = run.recorded[:, 0].argmax(axis=-1).tolist()
    ends = evidence.engine.info.eos_ids
    for drawn in (path, likely):
        end = next((step for step, token in enumerate(drawn) if token in ends), len(drawn) - 1)
        tokens, recorded = drawn[: end + 1], run.recorded[: end + 1]
        if tuple(tokens[:-1]) != run.tokens[: len(tokens) - 1]:
            rows = predicted(suspect.model, request, tokens[:-1], guided=both)
            yield Named("cache", "it belongs to another run, the greedy one of this text"), rows, recorded
