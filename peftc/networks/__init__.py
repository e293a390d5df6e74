"""Side networks: what runs beside a frozen backbone, one file for each concept."""
