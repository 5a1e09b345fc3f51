"""How often a request is retried and how long each wait is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The default waits add up to 61.5 to 92 seconds, more than the API's rate limit window of 60 seconds
    (docs/api.md, "Rate limit").

    Attributes:
        max_attempts: maximum number of attempts, including the first one.
        initial_backoff_seconds: backoff after the first attempt; it doubles after each further attempt.
        max_backoff_seconds: upper limit of the backoff, before jitter.
        max_wait_seconds: the longest wait that a response may ask for; if it asks for a longer one, retries end at
            once. Also the upper limit of `default_rate_limit_wait`.
    """

    max_attempts: int = 8
    initial_backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    max_wait_seconds: float = 300.0

    def wait_after(self, attempt: int, *, requested_wait: float | None, jitter: float) -> float | None:
        """Return the seconds to wait after a failed attempt, or None to give up.

        Args:
            attempt: the attempt that failed, counted from 1.
            requested_wait: seconds that the response asked to wait, or `default_rate_limit_wait`; None without either.
            jitter: 0 to 1; lengthens the wait by up to half, never shortens it.
        """
        if attempt >= self.max_attempts or (requested_wait or 0.0) > self.max_wait_seconds:
            return None
        # The exponent is bounded so that no policy can overflow a float.
        backoff = min(self.max_backoff_seconds, self.initial_backoff_seconds * 2.0 ** min(attempt - 1, 60))
        return max(requested_wait or 0.0, backoff * (1 + jitter / 2))

    def default_rate_limit_wait(self, attempt: int, *, window_seconds: float) -> float:
        """Return the seconds to wait after a 429 without `Retry-After`.

        The window slides, so a short wait usually suffices. The wait is a fraction of the window and doubles with each
        attempt. Before the last attempt it is the whole window, after which no earlier request counts. It is never
        longer than `max_wait_seconds`.

        Args:
            attempt: the attempt that was rejected, counted from 1.
            window_seconds: length of the rate limit window.
        """
        wait = window_seconds / 2.0 ** min(max(self.max_attempts - 1 - attempt, 0), 60)
        return min(wait, self.max_wait_seconds)
