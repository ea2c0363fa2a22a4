"""Trainings that are started on the page: each is a folder and a process of its own, and survives the app.

`job` is what a folder says, `worker` the process that waits for its turn and runs train_space.py, `manager` starts and
stops workers, `curves` reads their progress, `dataset` what is in a file, and `plan` what a training will take.
"""
