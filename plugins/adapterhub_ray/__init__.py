"""Several servers behind Ray Serve, each adapter in as few of them as possible."""
