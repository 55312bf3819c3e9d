"""A server's way to the lease book: calls where this process keeps it, frames where another server does."""

from collections.abc import Sequence

from compute.optim import ExactSum
from executor.book_keeper import BookKeeper
from executor.reduction_tree import Partial
from executor.session import Session
from executor.sum_message import encoded
from proto.exchange_pb2 import Header, Part, Prepared, Share


class BookLink:
    """See the module. What is said while there is no way is lost; the book asks again.

    Attributes:
        keeper: of the book, on the server that keeps it.
        session: to the book's server, on any other; None while there is no connection.
    """

    def __init__(self) -> None:
        self.keeper: BookKeeper | None = None
        self.session: Session | None = None

    @property
    def open(self) -> bool:
        """Whether there is a way."""
        return self.keeper is not None or self.session is not None

    def prepared(self, attempt: int, step: int, loss: float, samples: int, digest: int) -> None:
        """A step is applied; the keeper's own server says what the step added up."""
        if self.keeper is not None:
            self.keeper.prepared(step, loss, samples, digest)
        elif self.session is not None:
            self.session.send(Header(attempt=attempt, prepared=Prepared(step=step)))

    def shared(self, attempt: int, step: int, share: Sequence[ExactSum], result: Partial) -> None:
        """This slice's share of a step's sums. Only the keeper's own server counts samples: it says the mean loss."""
        if self.keeper is not None:
            self.keeper.shared(0, step, share, result.loss / result.samples)
        elif self.session is not None:
            message = Share(step=step, sums=[encoded(value) for value in share])
            self.session.send(Header(attempt=attempt, share=message))

    def part_written(self, attempt: int, part: Part) -> None:
        """A part of a checkpoint is safe."""
        if self.keeper is not None:
            self.keeper.part_written(0, part)
        elif self.session is not None:
            self.session.send(Header(attempt=attempt, part=part))
