"""An SFTP server as a remote of adapterhub."""
