"""The other replay buffers: each script runs where only its own library is installed; none imports ours."""
