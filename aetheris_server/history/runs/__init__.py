"""Runs as calls about them, and workers, see them: what the engine need not know.

kind        the run as a kind of aggregate; in memory it is a `run`, its row an `index`
runs        the runs of one engine: what the calls of history use
newest      which run a workflow id means
queries     questions to a run's code, which no log has
eager       tasks that go along with an answer
task_start  giving tasks to workers, and the messages that they get
notices     telling workers to cancel
events      reading a run's history
by_token    the run that a task's token names
"""
