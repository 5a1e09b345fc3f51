"""What is missing or wrong in the lake. No requests to the API."""
