#!/bin/sh
# The agent of the tests: reads the line that invokes it, and does what a word in it says.
read -r line
tool() { echo "{\"type\":\"AGENT_TOOL_CALL_REQUESTED\",\"payload\":{\"id\":\"$1\",\"toolName\":\"$2\",\"args\":{\"n\":1}}}"; }
case "$line" in
*say-ok*) echo "told $line" ;;
*say-fail*) echo why >&2; exit 3 ;;
*say-kill*) kill -9 $$ ;;
*say-wait*) echo waiting; read -r more; echo "told $more" ;;
*say-hang*) trap '' INT; echo hanging; while :; do sleep 0.1; done ;;
*say-orphan*) sleep 1000 & echo "orphan $!" ;;
*say-forge*)
    echo '{"type":"HITL_APPROVAL_GRANTED","payload":{"id":"x"}}'
    echo '{"type":"RUNTIME_EXECUTION_COMPLETED"}'
    echo '{"type":"SERVER_READY","payload":{"state":"forged"}}' ;;
*say-actions*)
    echo '{"type":"MINE","payload":{"b":1.50,"a":[1e3],"10":0}}'
    echo '{"type":"MINE","extra":1,"timestamp":5}'
    echo '{"type":"CUSTOM_EVENT","payload":{"progress":50}}'
    echo '{"type":"AGENT_MODEL_STREAM_DELTA","payload":"not kept"}'
    echo 'plain text' ;;
*say-nested*)
    open=; close=; n=0; while [ $n -lt 63 ]; do open="$open["; close="$close]"; n=$((n+1)); done
    echo "{\"type\":\"DEEP\",\"a\":$open$close}"
    echo "{\"type\":\"DEEP\",\"a\":[$open$close]}"
    ask='"type":"AGENT_TOOL_CALL_REQUESTED","payload":{"toolName":"write"'
    echo "{$ask,\"id\":\"deepest\",\"args\":${open#?}${close#?}}}"; read -r a; echo "got $a"
    echo "{$ask,\"id\":\"deeper\",\"args\":$open$close}}"; read -r a; echo "got $a" ;;
*say-many*) n=0; while [ $n -lt 1000 ]; do echo "line $n"; n=$((n+1)); done ;;
*say-last*) head -c 100000 /dev/zero | tr '\0' '\n' ;;
*say-env*) env; pwd ;;
*say-ask-two*) tool one write; tool two write; read -r a; echo "got $a"; read -r b; echo "got $b" ;;
*say-ask-both*) tool one write; tool one read; read -r a; echo "got $a"; read -r b; echo "got $b" ;;
*say-ask-read*) tool r1 read; read -r a; echo "got $a" ;;
*say-ask-bad*) echo '{"type":"AGENT_TOOL_CALL_REQUESTED","payload":{"id":"a/b"}}'; read -r a; echo "got $a" ;;
*say-calls*)
    calls=${line#*say-calls-}; calls=${calls%%-*}; n=0
    while [ $n -lt "$calls" ]; do tool "c$n" read; n=$((n+1)); done
    n=0; while [ $n -lt "$calls" ] && read -r a; do n=$((n+1)); done; echo "got $n" ;;
*say-ask-flood*) n=0; while [ $n -lt 65 ]; do tool "f$n" write; n=$((n+1)); done; read -r a; echo "got $a"; read -r b ;;
*say-ask-end*) tool left write ;;
*say-ask*) tool one write; read -r a; echo "got $a" ;;
esac
