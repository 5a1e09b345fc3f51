"""What happens in a run. It needs Arrow and HTTP, which the definitions load without: a step imports it."""
