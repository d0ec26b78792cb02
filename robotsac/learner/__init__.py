"""What runs on the GPU host: ingest, SAC, export."""
