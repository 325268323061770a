#!/bin/sh
# Ask one question and print the answer's events as they come.
#
#   GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_KEY=sk-… ./chat.sh
set -eu

curl --no-buffer --silent --show-error --fail-with-body \
    "${GATEWAY_URL:-http://127.0.0.1:8080}/api/chat-completions/" \
    --header "Authorization: Bearer ${GATEWAY_KEY:?set GATEWAY_KEY to a sub-key}" \
    --header 'Content-Type: application/json' \
    --data '{
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "What is the largest U.S. state by area?"}],
        "max_completion_tokens": 300
    }'
