#!/bin/sh
# A tour of the REST API with curl. It needs a running site with workers, and a token of a user
# who may do everything:
#
#     make run
#     TOKEN=$(.venv/bin/python manage.py drf_create_token admin | cut -d ' ' -f 3) sh docs/api-tour.sh
set -eu
URL=${URL:-http://127.0.0.1:8000/api/v1}
: "${TOKEN:?set TOKEN to the token of a user, see the first lines of this file}"

call() { # METHOD PATH [BODY]
	answer=$(curl --silent --show-error --fail-with-body --request "$1" \
		--header "Authorization: Token $TOKEN" \
		--header "Content-Type: application/json" \
		${3:+--data "$3"} "$URL/$2") || { echo "$1 $2: $answer" >&2; return 1; }
	printf '%s\n' "$answer"
}

field() { # NAME, such as results.0.id, of the JSON on standard input
	python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value[int(name)] if isinstance(value, list) else value[name]
print(value)' "$1"
}

watch() { # JOB STATE: wait until the job is in the state; a retry is not waited for
	for _ in $(seq 120); do
		state=$(call GET "jobs/$1/" | field state)
		echo "  job $1 is $state"
		if [ "$state" = "$2" ]; then return; fi
		if [ "$state" = retrying ]; then
			call POST "jobs/$1/retry/" '{"reason": "no need to wait"}' >/dev/null || true
		fi
		sleep 0.5
	done
	echo "it did not become $2" >&2
	exit 1
}

echo "Create a job and watch it"
job=$(call POST queues/credit-score-calculation/jobs/ \
	'{"actor": "recalculate_credit_scores", "reason": "a tour"}' | field id)
watch "$job" completed

echo "Schedule a job, list it, move it, cancel it"
job=$(call POST queues/order-processing/jobs/ \
	'{"actor": "order_completion", "args": [0], "at": "2035-01-31T08:00:00Z"}' | field id)
call GET "jobs/?state=scheduled&actor=order_completion&limit=1" | field results.0.id
call POST "jobs/$job/reschedule/" '{"to": "2035-02-28T08:00:00Z"}' | field due_at
call POST "jobs/$job/cancel/" '{"reason": "only a tour"}' | field cancelled
watch "$job" cancelled

echo "A job that fails: no report has the number 0"
job=$(call POST queues/report-generation/jobs/ \
	'{"actor": "generate_report", "args": [0]}' | field id)
watch "$job" dead
call GET "jobs/?state=failed&queue=report-generation&limit=1" | field results.0.error_class
letter=$(call GET "jobs/$job/" | field dead_letter)

echo "Its dead letter: note, priority, requeue"
call POST "dead-letters/$letter/notes/" '{"text": "Nobody asked for a report 0."}' | field author
call PATCH "dead-letters/$letter/" '{"priority": "low"}' | field priority
call POST "dead-letters/$letter/requeue/" '{"reason": "to see it fail again"}' | field status
watch "$job" dead
call GET "dead-letters/$letter/" | field deaths

echo "Nothing can mend it: close and remove it"
call POST "dead-letters/$letter/mark-failed/" '{"reason": "only a tour"}' | field status
call DELETE "jobs/$job/"

echo "Pause a queue and let it go on"
call POST queues/report-generation/pause/ '{"reason": "only a tour"}' | field changed
call GET queues/report-generation/ | field is_paused
call POST queues/report-generation/resume/ '{}' | field changed

echo "What all of that left behind"
call GET statistics/ | field queues.0.name
call GET "audit/?target_id=$letter" | field results.0.verb
echo "Done"
