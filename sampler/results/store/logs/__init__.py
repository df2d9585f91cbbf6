"""Token logs as people have them, read as TOKENS.jsonl: other files, other names, answers of servers."""
