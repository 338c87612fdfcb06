#!/bin/sh
# Base and head on this machine, in turn: R rounds of one fresh-process run each, so that a drift of
# the machine meets both alike. Used by the workflows beside this file; runs anywhere.
#
#   compare-revisions.sh BASE-PROGRAM HEAD-PROGRAM FOLDER [SUITE] [ROUNDS]
#
# FOLDER gets base/*.json and head/*.json, the report, and what CI shows. Exit code: 0 fine, 5 a case
# of head failed or was wrong; slower or faster is the gate's to say, which comes after.
set -eu

base=$1 head=$2 folder=$3 suite=${4:-quick} rounds=${5:-6}
mkdir -p "$folder/base" "$folder/head"

measure() { # PROGRAM SIDE ROUND
    code=0
    "$1" run "$suite" --runs 1 -q -o "$folder/$2/$3.json" ${CLUSTERMARK_RUN_OPTIONS:-} || code=$?
    printf '%s round %s: exit %s\n' "$2" "$3" "$code" >&2
    case $code in
    0) ;;
    5) [ "$2" = base ] || wrong=5 ;; # told at the end; the other rounds are worth having
    *) exit "$code" ;;
    esac
}

wrong=0 round=1
while [ "$round" -le "$rounds" ]; do
    if [ $((round % 2)) = 1 ]; then
        measure "$base" base "$round"
        measure "$head" head "$round"
    else # the other way round: whoever comes second may find the machine warm
        measure "$head" head "$round"
        measure "$base" base "$round"
    fi
    round=$((round + 1))
done

"$head" report "$folder/base" "$folder/head" -o "$folder/report.html"
"$head" export --format junit "$folder"/head/*.json -o "$folder/junit.xml"
"$head" export --format markdown "$folder/head" -o "$folder/summary.md"
"$head" export --format annotations "$folder/head" -o "$folder/annotations.txt"
exit "$wrong"
