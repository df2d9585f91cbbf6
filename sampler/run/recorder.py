"""The folder of a run: verdicts, the tokens of every request and their scores, failing steps, attention of some."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sampler import finch
from sampler.checks.scoring.summary import ScoreSummary
from sampler.checks.verdict import Verdict
from sampler.errors import OutputError
from sampler.matrix.matrix import Workload
from sampler.requests import Request, Steps
from sampler.results.store.attachments import ATTENTION, PICTURED, TOKENS, AttentionRun, TokenWriter, write_attention
from sampler.results.store.crash import write_crashes
from sampler.results.store.folder import PAGE, RUN, claimed, commit, discard, place_files, unsettled
from sampler.results.store.run_file import RunWriter
from sampler.results.store.scoring import SCORING, write_scoring
from sampler.results.store.tokens import TokenLine
from sampler.run.events import CaseResult, Event, Finished, Judged, Started
from sampler.run.header import footer
from sampler.run.session import Session
from sampler.runtime.files import partial_file, write_partial
from sampler.trace.attention import attention_in, trace_attention


class Recorder:
    """Writes the events of a run into partial files of its folder. crashes: the crash file of each case that has one.

    removed: how many crash files of an earlier run are gone; unsettled: why a file has not got its name yet, if so.
    """

    def __init__(self, session: Session, folder: Path, lines: RunWriter, tokens: TokenWriter) -> None:
        self._session, self._folder, self._lines, self._tokens = session, folder, lines, tokens
        self._attention: list[AttentionRun] = []
        self._scored: dict[str, ScoreSummary] = {}
        self._steps: list[tuple[Verdict, Steps]] = []
        self._failing = 0
        self.crashes: dict[str, Path] = {}
        self.removed = 0
        self.unsettled = ""

    def take(self, event: Event) -> None:
        match event:
            case Started():
                self._lines.header(dict(event.header))
            case Judged():
                self._add(event.result)
            case Finished():
                self._finish(event)

    def _add(self, result: CaseResult) -> None:
        """Write a cell's verdicts and tokens; keep the attention of one run if it is among the first failing cells."""
        for verdict in result.verdicts:
            self._lines.verdict(verdict)
            if verdict.check in result.steps:
                self._steps.append((verdict, result.steps[verdict.check]))
        if result.scored is not None:
            self._scored[result.case.id] = result.scored
        ids = prompt_ids(result.case.workload)
        for index, (request, generation) in enumerate(zip(result.requests, result.generations, strict=True)):
            record = generation.record
            line = TokenLine(
                cell=result.case.id,
                request=index,
                prompt=ids.get(request.prompt, index),
                tokens=generation.tokens,
                stop_reason=generation.stop_reason,
                slot=record.slot if record else None,
                width=record.width if record else None,
                **_asked(request, result.case.variant, known=request.prompt in ids),
            )
            self._tokens.write(line)
        if result.outcome in ("failed", "errored") and result.generations:
            self._failing += 1
            if self._failing <= PICTURED:
                self._keep_attention(result)

    def _finish(self, event: Finished) -> None:
        """Write crash files, attention and scores, then the footer with the checksum of each file."""
        self.crashes = write_crashes(self._folder, self._steps, write_partial)
        attention = write_attention(self._folder, self._attention, write_partial)
        scored = write_scoring(self._folder, self._scored, write_partial)
        files = {TOKENS: self._tokens.checksum(), **attention, **scored}
        names = {case: path.relative_to(self._folder).as_posix() for case, path in self.crashes.items()}
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        last = footer(event.verdicts, event.tokens, event.seconds)
        self._lines.write("footer", last | {"finished": finished, "files": files, "crashes": names})

    def place(self) -> None:
        """Give the files of the run their names; a failure goes into `unsettled`, for the run itself is safe."""
        for _ in range(2):
            try:
                self.removed += place_files(self._folder)
            except OutputError as error:
                self.unsettled = error.message
            else:
                self.unsettled = ""
                return

    def _keep_attention(self, result: CaseResult) -> None:
        """Keep the attention of the run that shows the failure: as recorded, or by generating it again in its slot.

        Nothing is kept if the engine has none, or if the second run has other tokens.
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
        except (Exception, SystemExit):  # noqa: BLE001 - the engine has failed already; its verdicts need no picture
            return
        if trace.tokens == generation.tokens:
            self._attention.append(AttentionRun(result.case.id, index, trace.attention, trace.pieces, trace.flags))


def _asked(request: Request, variant: str, *, known: bool) -> dict[str, Any]:
    """What a run was asked for, in the fields of a TokenLine. known: its text has an id of Finch's."""
    asked: dict[str, Any] = {"config": request.config.changes}
    if not known:
        asked["text" if isinstance(request.prompt, str) else "text_ids"] = request.prompt
        asked["language"] = request.language
    return {name: value for name, value in {**asked, "variant": variant}.items() if value}


def telling_run(result: CaseResult) -> int:
    """Index of the run that a picture of a failing cell should show.

    It is the first that a failing verdict names, else the first that did not end with EOS, else 0.
    """
    named = [verdict.request for verdict in result.verdicts if verdict.bad and verdict.request is not None]
    unended = [index for index, run in enumerate(result.generations) if run.stop_reason in ("length", "error")]
    return next((index for index in [*named, *unended] if index < len(result.generations)), 0)


def prompt_ids(workload: Workload) -> dict[str | tuple[int, ...], str]:
    """Ids of the texts that ship with Finch, by text; a matrix's own texts have none."""
    if not isinstance(workload.prompts, str):
        return {}
    return {prompt.text: prompt.id for prompt in finch.prompts(workload.prompts)}


@contextmanager
def recorded(session: Session, folder: Path, page: Callable[[Path], None] = lambda folder: None) -> Iterator[Recorder]:
    """A sink that writes into a folder; the run takes the place of an earlier one in one step, when the block ends.

    page: writes the partial page of the run, whose partial files are complete then. If anything raises before that
    step, the earlier run stays. Raises OutputError, also if another run writes into the folder.
    """
    with claimed(folder):
        if unsettled(folder):
            place_files(folder)
        discard(folder, (ATTENTION, SCORING, PAGE))  # of a run that died; the other two are written anew
        is_kept = False
        try:
            with partial_file(folder / RUN) as lines, partial_file(folder / TOKENS) as tokens:
                recorder = Recorder(session, folder, RunWriter(lines), TokenWriter(tokens))
                yield recorder
            page(folder)
            commit(folder)
            is_kept = True
            recorder.place()
        except BaseException as error:
            if not is_kept:
                discard(folder)
            error.add_note(_fate(folder, is_kept=is_kept))
            raise


def _fate(folder: Path, *, is_kept: bool) -> str:
    """What became of a run that was interrupted."""
    if is_kept:
        return f"the run is complete in {folder}"
    return f"{folder} holds the run from before" if (folder / RUN).exists() else f"nothing was kept in {folder}"
