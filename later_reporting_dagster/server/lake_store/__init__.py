"""The store of `later-reporting serve`: the posts of a lake behind the documented endpoint."""
