"""How often a request is retried and how long each wait is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The default waits add up to 61.5 to 92 seconds, more than the API's rate limit window of 60 seconds
    (docs/api.md, "Rate limit").

    Attributes:
        max_attempts: maximum number of attempts, including the first one.
        initial_backoff_seconds: backoff after the first attempt; it doubles after each further one.
        max_backoff_seconds: upper limit of the backoff, before jitter.
        max_wait_seconds: the longest wait that a response may ask for; for a longer one, retries end at once.
    """

    max_attempts: int = 8
    initial_backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    max_wait_seconds: float = 300.0

    def wait_after(self, attempt: int, *, requested_wait: float | None, jitter: float) -> float | None:
        """Return the seconds to wait after a failed attempt, or None to give up.

        Args:
            attempt: the attempt that failed, counted from 1.
            requested_wait: seconds that the response asked to wait; None if it did not.
            jitter: 0 to 1; lengthens the wait by up to half, never shortens it.
        """
        if attempt >= self.max_attempts or (requested_wait or 0.0) > self.max_wait_seconds:
            return None
        # The exponent is bounded so that no policy can overflow a float.
        backoff = min(self.max_backoff_seconds, self.initial_backoff_seconds * 2.0 ** min(attempt - 1, 60))
        return max(requested_wait or 0.0, backoff * (1 + jitter / 2))

    def default_rate_limit_wait(self, attempt: int, *, window_seconds: float) -> float:
        """Return the seconds to wait after a 429 without `Retry-After`.

        It is a fraction of the window that doubles with each attempt, up to the whole window before the last attempt.
        The window slides, so a short wait usually suffices. Only before the last attempt does the wait cover the whole
        window, after which no earlier request counts.

        Args:
            attempt: the attempt that was rejected, counted from 1.
            window_seconds: length of the rate limit window.
        """
        return window_seconds / 2.0 ** min(max(self.max_attempts - 1 - attempt, 0), 60)
