"""What runs on the GPU host: ingest, SAC, export.

To read SAC beside the paper, start at ``sac`` and follow it into ``heads``, ``critic``, ``actor_loss`` and
``temperature``; ``variants`` says what else there is. Data comes in through ``replay_log`` → ``assembler`` → ``replay``, and
from earlier runs through ``prior_data``; ``limiter`` says when to train. ``learning`` ties these together, ``training`` adds
policies (``export``), ``checkpoint`` and ``metrics``, ``trainer`` is the process around it, and ``app`` the supervisor of
``trainer`` and ``ingest``.
"""
