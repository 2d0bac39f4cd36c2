"""`make bench`: the service beside a hand-written floor and its peers, on the same jobs with the same data."""
