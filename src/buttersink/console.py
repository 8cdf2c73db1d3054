"""
All that the `buttersink` command writes: results on stdout, messages and progress on stderr.

With `as_json` stdout gets one document and nothing else. What is written is decided here alone;
what is done is not: nothing here asks a store or changes a plan. `wording` has the words, `drawing`
the tables and bars.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from buttersink.errors import printable
from buttersink.planner.plan import Action
from buttersink.progress import Reporter
from buttersink.report import (
    listing_document,
    steps_of,
    sync_document,
    utc_text,
    verdict_document,
)
from buttersink.version import program_version
from buttersink.wording import (
    closing,
    counted,
    duration_text,
    encodable,
    is_idle,
    listing_total,
    losses,
    namesakes,
    partial_columns,
    plan_columns,
    remarks,
    size_text,
    snapshot_columns,
    summary_of,
    verdict_summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from buttersink.catalogue import Catalogue
    from buttersink.drawing import Bar, Bars
    from buttersink.planner.plan import Plan
    from buttersink.progress import Transfer, Verification
    from buttersink.report import Document, Report
    from buttersink.verdict import Verdict
    from buttersink.wording import Column, Row

_SILENT = 2  # the -q count from which only errors are written


class Console(Reporter):
    """
    Writes for one run of the command.

    `quiet` 1 leaves out progress, 2 everything but errors and JSON. `verbose` 1 adds reasons, kept
    snapshots and UUIDs, 2 what helps with debugging. `logfile` gets every message with its time,
    whatever `quiet` says. Writing to stdout may raise `OSError`; stderr and the log file failing
    never ends a run.
    """

    def __init__(
        self,
        *,
        stdout: TextIO,
        stderr: TextIO,
        quiet: int,
        verbose: int,
        as_json: bool,
        logfile: TextIO | None = None,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._quiet = quiet
        self._verbose = verbose > 0
        self._debug = verbose > 1 and quiet < _SILENT
        self._json = as_json
        self._logfile = logfile
        drawn = quiet == 0 and stderr.isatty() and not (as_json and stdout.isatty())
        self._bars = _bars(stderr) if drawn else None
        self._planned: tuple[str, str, Plan, bool] | None = None
        self._told: BaseException | None = None
        self._all_bytes = 0  # of the run's transfers
        self._passed = 0  # of those, in transfers that have ended
        self._sent = 0  # of the transfer that is on its way
        self._began = 0.0

    def listing(self, location: str, catalogue: Catalogue) -> None:
        """Write what one location holds."""
        if self._json:
            now = time.time_ns()
            self._document(listing_document(program_version(), location, catalogue, now))
            return
        if catalogue.snapshots:
            self._table(snapshot_columns(catalogue, verbose=self._verbose), catalogue.snapshots)
        if catalogue.partials:
            self._result("", "Partial transfers:")
            self._table(partial_columns(time.time_ns(), verbose=self._verbose), catalogue.partials)
        self._result(listing_total(location, catalogue))
        for line in namesakes(catalogue.snapshots):
            self.note(line)

    def plan(self, source: str, destination: str, plan: Plan, dry_run: bool) -> None:  # noqa: FBT001  three callers, one sense
        """Write what will be done, or with `dry_run` would be; JSON waits for `report`."""
        self._planned = (source, destination, plan, dry_run)
        summary = summary_of(source, destination, plan)
        self._log(f"plan: {printable(source)} -> {printable(destination)}: {summary}")
        if self._json:
            return
        steps = [s for s in steps_of(plan) if self._verbose or s.action is not Action.KEEP]
        if steps:
            self._result(f"{printable(source)} -> {printable(destination)}")
            self._table(plan_columns(steps, verbose=self._verbose), steps)
        self._result(summary)
        if dry_run and not is_idle(plan):
            self._result("Dry run: nothing was changed.")

    def report(self, report: Report | None) -> None:
        """Write what was done, None if nothing was tried; JSON gets its one document here."""
        if self._json and self._planned is not None:
            source, destination, plan, dry_run = self._planned
            self._document(
                sync_document(
                    program_version(), source, destination, plan, dry_run=dry_run, report=report
                )
            )
        copies = self._planned[2].of(Action.COPY) if self._planned else ()
        lines = list(closing(report, {step.path for step in copies})) if report else []
        for line in lines:
            self._log(line)
        if lines and not self._json:
            self._result(*lines)

    def verdict(self, location: str, verdict: Verdict) -> None:
        """Write what a verification has found; what is broken was told as it was found."""
        for loss in losses(verdict):
            self.error(loss)
        for line in remarks(verdict):
            self.note(line)
        summary = verdict_summary(location, verdict)
        self._log(summary)
        if self._json:
            now = time.time_ns()
            self._document(verdict_document(program_version(), location, verdict, now))
        else:
            self._result(summary)

    def error(self, error: BaseException) -> None:
        """Write one line about an error, once even if it is told twice in a row."""
        if error is self._told:
            return
        self._told = error
        text = "; ".join(str(error).splitlines()) or type(error).__name__
        self._log(f"error: {printable(text)}")
        self._message(f"error: {printable(text)}")

    def starting(self, transfers: int, total_bytes: int) -> None:
        """Remember what the whole run's bar counts."""
        self._all_bytes = total_bytes
        self._passed = 0
        self._log(f"starting {counted(transfers, 'transfer')}: {total_bytes} bytes expected")
        if self._bars:
            self._bars.clear()

    def measuring(self, done: int, total: int) -> None:
        """Draw how many sizes are known."""
        if self._bars and done < total:
            from buttersink.drawing import Bar

            self._bars.draw(lambda: [Bar("measuring", "Measuring", done, total, in_bytes=False)])
        elif self._bars:
            self._bars.clear()

    def measured(self, asked: int, candidates: int, remembered: int) -> None:
        """Write how much was measured, if that is wanted."""
        line = f"measured {asked} of {counted(candidates, 'candidate diff')}"
        if remembered:
            line += f", {remembered} remembered"
        self._log(line)
        if self._verbose and self._quiet < _SILENT:
            self._message(line)

    def chosen(self, planned_bytes: int, plain_bytes: int) -> None:
        """Write what measuring saves, if that is wanted and anything is saved."""
        saved = plain_bytes - planned_bytes
        if saved <= 0:
            return
        line = (
            f"choosing by size saves {size_text(saved)}: each snapshot from the one before it "
            f"would take {size_text(plain_bytes)}"
        )
        self._log(line)
        if self._verbose and self._quiet < _SILENT:
            self._message(line)

    def transfer_started(self, transfer: Transfer) -> None:
        """Begin counting a transfer's bytes."""
        self._sent = 0
        self._began = time.monotonic()
        size = "" if transfer.size is None else f": {transfer.size} bytes expected"
        self._log(f"started {printable(transfer.path)}{size}")

    def transfer_advanced(self, transfer: Transfer, sent: int) -> None:
        """Draw the bars of the transfer and, where there are several, of the run."""
        self._sent = sent
        if self._bars:
            self._bars.draw(lambda: self._transfer_bars(transfer, sent))

    def transfer_ended(self, transfer: Transfer, error: Exception | None) -> None:
        """Log how a transfer ended; its error is written here."""
        self._passed += self._sent if transfer.size is None else transfer.size
        outcome = "failed" if error else "done"
        spent = duration_text(time.monotonic() - self._began)
        self._log(f"{outcome} {printable(transfer.path)}: {self._sent} bytes, {spent}")
        if error:
            self.error(error)

    def verifying(self, progress: Verification) -> None:
        """Draw how much is verified: bytes where they are read, else diffs."""
        if not self._bars:
            return
        from buttersink.drawing import Bar

        done, total, reads = progress.diffs, progress.all_diffs, progress.all_bytes > 0
        label = f"Verifying {done}/{total}"
        if reads:
            done, total = progress.bytes, max(progress.all_bytes, progress.bytes)
        self._bars.draw(lambda: [Bar("verifying", label, done, total, in_bytes=reads)])

    def failed(self, error: Exception) -> None:
        """Write an error the run goes on after."""
        self.error(error)

    def removed(self, path: bytes) -> None:
        """Write that a snapshot or a partial is gone."""
        self._log(f"removed {printable(path)}")
        if self._quiet < _SILENT:
            self._message(f"removed {printable(path)}")

    def note(self, message: str) -> None:
        """Write a message."""
        self._log(f"note: {printable(message)}")
        if self._quiet < _SILENT:
            self._message(f"note: {printable(message)}")

    def debug(self, message: str) -> None:
        """Write what only those who look for a fault want to know."""
        self._log(f"debug: {printable(message)}")
        if self._debug:
            self._message(f"debug: {printable(message)}")

    def finished(self) -> None:
        """Take the bars off the terminal."""
        if self._bars:
            self._bars.clear()

    def _transfer_bars(self, transfer: Transfer, sent: int) -> Iterator[Bar]:
        from buttersink.drawing import Bar

        if transfer.count > 1:
            size = sent if transfer.size is None else min(sent, transfer.size)
            whole = max(self._all_bytes, self._passed + size) or None
            label = f"Sending {counted(transfer.count, 'snapshot')}"
            yield Bar("whole", label, self._passed + size, whole)
        total = None if transfer.size is None else max(transfer.size, sent)
        label = f"{transfer.number}/{transfer.count} {printable(transfer.path)}"
        yield Bar(str(transfer.number), label, sent, total)

    def _result(self, *lines: str) -> None:
        """Write lines of text for people to stdout."""
        if self._quiet < _SILENT:
            self._write("".join(f"{encodable(line, self._stdout)}\n" for line in lines))

    def _table(self, columns: Sequence[Column[Row]], rows: Sequence[Row]) -> None:
        from buttersink.drawing import draw_table  # a run with nothing to do draws nothing

        if self._quiet < _SILENT:
            self._write(draw_table(self._stdout, columns, rows))

    def _document(self, document: Document) -> None:
        import json  # 3 ms that text output can do without

        self._write(json.dumps(document, indent=2) + "\n")

    def _write(self, text: str) -> None:
        if self._bars:
            self._bars.clear()
        self._stdout.write(text)
        self._stdout.flush()

    def _message(self, text: str) -> None:
        line = encodable(f"buttersink: {text}", self._stderr)
        with suppress(OSError):  # nobody is left to be told
            if self._bars and self._bars.write_above(line):
                return
            self._stderr.write(f"{line}\n")
            self._stderr.flush()

    def _log(self, text: str) -> None:
        if self._logfile is None:
            return
        try:
            line = encodable(text, self._logfile)
            self._logfile.write(f"{utc_text(time.time_ns())} {line}\n")
            self._logfile.flush()
        except OSError as error:
            self._logfile = None
            self.note(f"the log file ends here: {error}")


def _bars(stream: TextIO) -> Bars:
    from buttersink.drawing import Bars

    return Bars(stream)
