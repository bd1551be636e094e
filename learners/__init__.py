"""Learners: models, objectives, updates. They read batches from replay and publish weights; they know no actor."""
