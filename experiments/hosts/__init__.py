"""The processes that train one trial together: how they meet, agree and end."""
