"""Pages that people open in a browser: the leaderboard as one file, and the test of real or fake. No torch here."""
