"""What `sampler run` keeps beside its verdicts: the tokens of every request, and the attention of failing cells."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sampler import finch
from sampler.matrix.matrix import Workload
from sampler.results.store.attachments import PICTURED, TOKENS, AttentionRun, TokenRun, TokenWriter, write_attention
from sampler.run.events import CaseResult
from sampler.run.session import CHECKS, Session
from sampler.runtime.files import output_errors
from sampler.trace.attention import attention_in, trace_attention


class Recorder:
    """Takes the cells of a run one after the other."""

    def __init__(self, session: Session, folder: Path, writer: TokenWriter) -> None:
        self._session, self._folder, self._writer = session, folder, writer
        self._attention: list[AttentionRun] = []
        self._failing = 0

    def add(self, result: CaseResult) -> None:
        """Write the tokens of a cell; keep the attention of one of its runs if it is among the first that fail."""
        ids = prompt_ids(result.case.workload)
        for index, (request, generation) in enumerate(zip(result.requests, result.generations, strict=True)):
            prompt = ids.get(request.prompt, index)
            record = generation.record
            slot, width = (record.slot, record.width) if record else (None, None)
            self._writer.write(
                TokenRun(result.case.id, index, prompt, generation.tokens, generation.stop_reason, slot, width)
            )
        if result.outcome in ("failed", "errored") and result.generations:
            self._failing += 1
            if self._failing <= PICTURED:
                self._keep_attention(result)

    def finish(self, crashes: Mapping[str, Path]) -> dict[str, Any]:
        """Write what is left. Returns what belongs into the footer: the time, each file's SHA-256, the crash files."""
        files = {TOKENS: self._writer.checksum(), **write_attention(self._folder, self._attention)}
        names = {case: path.relative_to(self._folder).as_posix() for case, path in crashes.items()}
        return {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "files": files, "crashes": names}

    def _keep_attention(self, result: CaseResult) -> None:
        """The attention of the run that shows the failure: recorded, or by generating it again in its slot.

        Nothing is kept where the engine has none, or where other tokens come out the second time.
        """
        index = telling_run(result)
        request, generation = result.requests[index], result.generations[index]
        record = generation.record
        try:
            engine = self._session.engine_for(result.case)
            if record is not None and record.attention is not None:
                trace = attention_in(engine, request, generation)
            else:
                trace = trace_attention(engine, replace(request, slot=record.slot if record else None))
        except (Exception, SystemExit):  # noqa: BLE001 - the engine fails already; its verdicts stand without a picture
            return
        if trace.tokens == generation.tokens:
            self._attention.append(AttentionRun(result.case.id, index, trace.attention, trace.pieces, trace.flags))


def telling_run(result: CaseResult) -> int:
    """Index of the run that a picture of a failing cell should show.

    It is the first that a failing verdict names (`request 3`), else the first that did not end with EOS, else 0.
    """
    failing = [verdict.message for verdict in result.verdicts if verdict.outcome in ("failed", "errored")]
    named = [int(found[1]) for message in failing for found in re.finditer(r"\brequest (\d+)\b", message)]
    unended = [index for index, each in enumerate(result.generations) if each.stop_reason in ("length", "error")]
    return next((index for index in [*named, *unended] if index < len(result.generations)), 0)


def prompt_ids(workload: Workload) -> dict[str | tuple[int, ...], str]:
    """Ids of the texts that come with Finch, by text; texts of one's own have none."""
    return (
        {prompt.text: prompt.id for prompt in finch.prompts(workload.prompts)}
        if isinstance(workload.prompts, str)
        else {}
    )


def about(session: Session) -> dict[str, Any]:
    """What a header says beyond `Session.header`: why there is the matrix, and what each check asks."""
    asked: Mapping[str, Callable[..., object]] = {name: check for name, check, *_ in CHECKS}
    if session.matrix.longform:
        from sampler.checks.longform.questions import DOCUMENTED
        from sampler.run.longform import ALONE

        asked = {**DOCUMENTED, **ALONE}
    questions = {name: (inspect.getdoc(check) or "").partition("\n\n")[0] for name, check in asked.items()}
    return {"why": session.matrix.why, "checks": {name: " ".join(text.split()) for name, text in questions.items()}}


@contextmanager
def recorded_run(session: Session, folder: Path) -> Iterator[Recorder]:
    """Record beside a run; tokens.jsonl appears under its name only when the run is complete."""
    final, partial = folder / TOKENS, folder / f"{TOKENS}.partial"
    with output_errors(partial):
        file = partial.open("w", encoding="utf-8")
    try:
        yield Recorder(session, folder, TokenWriter(file, partial))
        with output_errors(partial):
            file.close()
            partial.replace(final)
    finally:
        with suppress(OSError):  # closing flushes once more to a disk that may be full
            file.close()
        partial.unlink(missing_ok=True)
