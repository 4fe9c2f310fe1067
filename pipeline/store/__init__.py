"""The shared stores as a user meets them: listed, verified, handed on, tidied."""
