#!/usr/bin/env bash
# What is to be measured on a GPU, by one command: attention at the shape of a 7B model, training at that of a 1B one,
# and the study of examples/smollm2.yaml with ten seeds. It ends by itself after MINUTES (12). The same command goes on
# where it ended.
#
#   make setup && DATA=FOLDER MODEL=FOLDER benchmarks/gpu.sh run OUT
#
# MODEL is what `make real-model` wrote; DATA holds svamp/ and palm_rationales/, as for `make real-study`. For a machine
# without a network whose Python has torch:
#
#   DATA=FOLDER FOR=3.12 THERE=list.txt benchmarks/gpu.sh pack PACK     here: PACK/1-of-3 … of 48 MiB each at most
#   PYTHON=python3 benchmarks/gpu.sh run OUT PACK                       there, in a checkout, with all parts of PACK
#
# FOR is the version of Python there, THERE what `pip list` prints there; without it, all that molsaki needs but torch
# is packed. Where there is no GPU (or SIZE=tiny), `run` takes the same steps at tiny sizes, without DATA and MODEL on
# made-up ones: a few minutes on two cores, to know that it works. OUT/summary.txt says how long each step took and how
# it ended; OUT/results.tar.gz is all that is worth carrying home. DRY_RUN=1 prints the commands and does nothing.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
MINUTES=${MINUTES:-12}
PART=${PART:-48M}
CORES=$(nproc)
HAND=60     # seconds kept for stopping what runs, and for tables

fail() {
    echo "error: $*" >&2
    exit 1
}

[[ $MINUTES =~ ^[1-9][0-9]*$ ]] || fail "MINUTES: expected a whole number of minutes, found $MINUTES"

require_python() {
    command -v "$PYTHON" > /dev/null || fail "there is no $PYTHON: make setup, or PYTHON=…"
}

# Packing ------------------------------------------------------------------------------------------------------------
pack() {  # pack PACK: everything that `run` needs, as parts
    local pack=$1 there=${THERE:-/dev/null} python
    require_python
    [ -n "${DATA:-}" ] || fail "DATA has to name the folder with svamp/ and palm_rationales/"
    python=${FOR:-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')} || exit 1
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/wheels"
    cp "$DATA/svamp/chilled_train.jsonl" "$scratch/train.jsonl" &&
        cp "$DATA/svamp/chilled_test.jsonl" "$scratch/test.jsonl" &&
        cp "$DATA/palm_rationales/svamp_palm_joined.jsonl" "$scratch/palm.jsonl" || exit 1
    cd "$ROOT" && "$PYTHON" -m benchmarks.gpu_parts packages "$python" "$there" > "$scratch/packages.txt" || exit 1
    download "$python" "$scratch" || fail "the packages of ${THERE:-requirements/cpu.txt} cannot be downloaded"
    "$PYTHON" -m benchmarks.gpu_parts model "$scratch" || exit 1
    split_into "$pack" "$scratch"
}

download() {  # download PYTHON FOLDER: wheels of what FOLDER/packages.txt names, and of molsaki itself
    local platforms=() name
    for name in manylinux1 manylinux2014 manylinux_2_{17,24,26,27,28}; do
        platforms+=(--platform "${name}_$(uname -m)")
    done
    [ ! -s "$2/packages.txt" ] || "$PYTHON" -m pip download --quiet --no-deps --only-binary :all: --dest "$2/wheels" \
        --implementation cp --python-version "$1" "${platforms[@]}" --requirement "$2/packages.txt" || return
    "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$2/wheels" "$ROOT"
}

split_into() {  # split_into PACK FOLDER: all of FOLDER as PACK/1-of-N/part …, each with its hash beside it
    local pack=$1 count number=0 part place
    mkdir -p "$pack" && [ -z "$(ls "$pack")" ] || fail "$pack: expected an empty folder"
    tar --create --directory "$2" . | split --bytes "$PART" --suffix-length 3 - "$pack/unnumbered-" || exit 1
    count=$(find "$pack" -name 'unnumbered-*' | wc -l)
    for part in "$pack"/unnumbered-*; do
        place=$pack/$((number += 1))-of-$count
        mkdir "$place" && mv "$part" "$place/part" && (cd "$place" && sha256sum part > part.sha256) || exit 1
    done
    du --total --human-readable --apparent-size "$pack"/*
}

join() {  # join PACK FOLDER: put the parts together again, once all are there and whole
    local pack=$1 count place places=()
    count=$(find "$pack" -maxdepth 1 -name '1-of-*' -printf '%f' 2>/dev/null)
    for place in $(seq "${count#1-of-}" 2>/dev/null); do places+=("$pack/$place-of-${count#1-of-}"); done
    [ "${#places[@]}" -gt 0 ] || fail "$pack: expected folders 1-of-N, 2-of-N, …; make them: benchmarks/gpu.sh pack"
    for place in "${places[@]}"; do
        (cd "$place" && sha256sum --check --quiet part.sha256) || fail "$place: missing or damaged; carry it again"
    done
    rm -rf "$2.part"
    mkdir -p "$2.part"
    cat "${places[@]/%//part}" | tar --extract --directory "$2.part" || fail "$2: the parts cannot be unpacked"
    mv "$2.part" "$2"
}

# Running ------------------------------------------------------------------------------------------------------------
left() {  # seconds until the end
    echo $((MINUTES * 60 - SECONDS))
}

say() {  # say NAME ENDING SECONDS: a line of the summary
    printf '%-22s %5d s  %s\n' "$1" "$3" "$2" | tee -a "$OUT/summary.txt"
}

# shellcheck disable=SC2329  # called by traps
stop() {  # end what runs, which saves what it has
    # shellcheck disable=SC2046  # one word a process
    kill $(jobs -p) 2> /dev/null
    wait
    exit 75
}

step() {  # step NAME SECONDS COMMAND…: run it within its time, once; what it prints is NAME.txt or NAME.json afterwards
    local name=$1 most=$2 result=$OUT/$1.txt rest began=$SECONDS code
    shift 2
    trap stop INT TERM
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "$@"
        echo
        return
    fi
    case " $* " in *" --json "*) result=$OUT/$name.json ;; esac
    [ ! -e "$result" ] || return 0
    rest=$(($(left) - ${KEPT:-$HAND}))
    if [ "$rest" -lt 10 ]; then
        say "$name" "not begun, no time is left" 0
        return 75
    fi
    timeout --kill-after=20 $((most < rest ? most : rest)) "$@" > "$result.part" 2>> "$OUT/$name.log" &
    wait $!
    code=$?
    case $code in
        0) mv "$result.part" "$result" && say "$name" "done" $((SECONDS - began)) ;;
        75 | 124 | 137) say "$name" "stopped, its time was over" $((SECONDS - began)) ;;
        *)
            say "$name" "FAILED with $code: $(tail -n 1 "$OUT/$name.log")" $((SECONDS - began))
            echo "$name" >> "$OUT/failed.txt"
            ;;
    esac
    return "$code"
}

molsaki() {  # molsaki NAME SECONDS ARGUMENTS…: a step that is a command of ours
    local name=$1 most=$2
    shift 2
    if [ -n "${DRY_RUN:-}" ]; then
        step "$name" "$most" molsaki "$@"
    else
        step "$name" "$most" "$PYTHON" -P -m pipeline "$@"
    fi
}

unpack() {  # unpack PACK: packages, model and data of a pack, or made-up ones; sets MODEL, TRAIN, TEST, PALM
    local place=$OUT/inputs
    if [ -n "$1" ]; then
        [ -n "${DRY_RUN:-}" ] || [ -d "$place" ] || join "$1" "$place"
        step packages 300 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
            --upgrade --target "$OUT/site" "$place"/wheels/*.whl || exit 1
    fi
    MODEL=${MODEL:-$OUT/model}
    if [ -n "$1" ] && [ ! -d "$MODEL" ]; then
        molsaki model 120 convert-gguf "$(echo "$place"/*.gguf)" "$MODEL" || exit 1
    elif [ -z "$1" ] && [ -z "${DATA:-}" ]; then
        place=$OUT/made-up MODEL=$OUT/made-up/model
        step made-up 120 "$PYTHON" -m benchmarks.gpu_parts made-up "$place" || exit 1
    fi
    TRAIN=$place/train.jsonl TEST=$place/test.jsonl PALM=$place/palm.jsonl
    if [ -n "${DATA:-}" ]; then
        TRAIN=$DATA/svamp/chilled_train.jsonl TEST=$DATA/svamp/chilled_test.jsonl
        PALM=$DATA/palm_rationales/svamp_palm_joined.jsonl
    fi
}

measure() {  # measure SECONDS: benchmarks that are not there yet, none begun after so many seconds
    local until=$1 length
    local shape=(--preset 7b --device cuda) methods=forward,molsaki,output_attentions,one-by-one
    local student=(--preset 1b --device cuda --records 16) objectives=dss,molsaki,output_attentions
    local lengths=(4096 svamp 512 1024 2048)
    if [ "$SIZE" = tiny ]; then
        shape=(--layers 2 --width 64 --heads 4 --repeats 1 --device cpu) methods=forward,molsaki lengths=(svamp)
        student=("${shape[@]}" --records 2 --vocabulary 500 --length 64) objectives=dss,molsaki
    fi
    in_time() { [ "$SECONDS" -lt "$until" ] || [ -n "${DRY_RUN:-}" ]; }
    in_time && molsaki "attention-${lengths[0]}" 240 bench attention --lengths "${lengths[0]}" "${shape[@]}" \
        --methods "$methods" --json
    in_time && molsaki train 180 bench train "${student[@]}" --methods "$objectives" --json
    for length in "${lengths[@]:1}"; do
        in_time && molsaki "attention-$length" 180 bench attention --lengths "$length" "${shape[@]}" \
            --methods "$methods$([ "$length" != svamp ] || echo ,words)" --json
    done
    [ -n "${DRY_RUN:-}" ] || "$PYTHON" -c "import vllm" 2>/dev/null || return 0
    [ "$SIZE" != tiny ] || shape+=(--heads 2)    # vLLM on a CPU wants heads of 32
    in_time && molsaki attention-vllm 240 bench attention --engine vllm --lengths 512 "${shape[@]}" --json
    [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -lt 2 ] || ! in_time || molsaki attention-vllm-2 240 bench attention \
        --engine vllm --tensor-parallel 2 --lengths 512 "${shape[@]}" --json
}

study() {  # the study, its students in several processes, first with few seeds, so that there is something to compare
    local seeds name rounds=('[0, 1]' '[0, 1, 2, 3, 4]' '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]') shard pids
    local settings=(examples/smollm2.yaml --runs "$OUT/runs" --set "store=$OUT/store"
        --set "teacher.model=$MODEL" --set "student.model=$MODEL" --set "rationales.path=$PALM"
        --set "data.train.0.path=$TRAIN" --set "data.test.0.path=$TEST" --set training.loader_workers=0)
    if [ "$SIZE" = tiny ]; then
        rounds=('[0]' '[0, 1]')
        settings+=(--set data.train.0.limit=8 --set data.test.0.limit=4
            --set training.epochs=3 --set evaluation.max_new_tokens=8
            --set 'matrix=[{objective.name: [dss, fine-tune-cot, molsaki]}]')
    fi
    molsaki rationales 120 rationales "${settings[@]}" &&
        molsaki attention 120 attention "${settings[@]}" || return
    for seeds in "${rounds[@]}"; do
        pids=()
        for shard in $(seq "$PROCESSES"); do
            name=study-$(wc -w <<< "$seeds")-seeds-$shard-of-$PROCESSES
            OMP_NUM_THREADS=$(((CORES + PROCESSES - 1) / PROCESSES)) molsaki "$name" 3600 \
                run "${settings[@]}" --set "training.seeds=$seeds" --shard "$shard/$PROCESSES" &
            pids+=($!)
            [ -z "${DRY_RUN:-}" ] || wait $!
        done
        wait "${pids[@]}"
    done
}

tables() {  # the study's accuracies, of what is evaluated
    local base form
    rm -f "$OUT"/compare-*
    if [ -z "${DRY_RUN:-}" ] && ! compgen -G "$OUT/runs/smollm2/*/evaluation/summary.json" > /dev/null; then
        say compare "nothing is evaluated yet" 0
        return
    fi
    for base in dss fine-tune-cot; do
        for form in '' --json; do
            # shellcheck disable=SC2086  # no form is no argument
            KEPT=5 molsaki "compare-$base" 30 compare smollm2 --runs "$OUT/runs" --base "$base" $form
        done
    done
}

run() {  # run OUT [PACK]
    OUT=$1
    if [ -z "${SIZE:-}" ]; then nvidia-smi -L > /dev/null 2>&1 && SIZE=full || SIZE=tiny; fi
    if [ -z "${2:-}" ] && { [ "$SIZE" = full ] || [ -n "${DATA:-}${MODEL:-}" ]; }; then
        [ -n "${DATA:-}" ] && [ -n "${MODEL:-}" ] || fail "name a PACK, or both DATA and MODEL"
    fi
    PROCESSES=${PROCESSES:-$((CORES < 4 ? 2 : CORES / 2 < 8 ? CORES / 2 : 8))}
    if [ -z "${DRY_RUN:-}" ]; then
        require_python
        mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 1
        [ -z "${2:-}" ] || set -- "$OUT" "$(cd "$2" && pwd)"
        [ "$(cat "$OUT/size.txt" 2> /dev/null || echo "$SIZE")" = "$SIZE" ] || fail "$OUT: it is of the other size"
        echo "$SIZE" > "$OUT/size.txt"
        rm -f "$OUT/failed.txt"
        trap stop INT TERM
        echo "$(date --utc +%FT%TZ) $SIZE, $MINUTES minutes, $PROCESSES processes" | tee -a "$OUT/summary.txt"
        nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null |
            tee -a "$OUT/summary.txt"
    fi
    export HF_HUB_OFFLINE=1 PYTHONPATH=$ROOT:$OUT/site${PYTHONPATH:+:$PYTHONPATH}
    cd "$ROOT" || exit 1
    unpack "${2:-}"
    measure $((MINUTES * 30))
    study
    [ -n "${DRY_RUN:-}" ] || measure $((MINUTES * 60))
    tables
    [ -z "${DRY_RUN:-}" ] || return 0
    tar --create --gzip --file "$OUT/results.tar.gz" --directory "$OUT" \
        --exclude '*.safetensors' --exclude 'tokenizer*' --exclude student_attention.parquet \
        --exclude results.tar.gz --exclude inputs --exclude made-up --exclude model --exclude site --exclude store .
    say all "$OUT/results.tar.gz" "$SECONDS"
    [ ! -e "$OUT/failed.txt" ]
}

main() {
    local name
    [[ $PYTHON != */* || $PYTHON == /* ]] || PYTHON=$PWD/$PYTHON
    for name in DATA MODEL THERE; do [ -z "${!name:-}" ] || printf -v "$name" %s "$(realpath -m "${!name}")"; done
    case "${1:-} $#" in
        "pack 2") pack "$(realpath -m "$2")" ;;
        "split 3") split_into "$2" "$3" ;;    # what `pack` ends with
        "join 3") join "$2" "$3" ;;           # what `run` begins with
        "run 2" | "run 3") run "${@:2}" ;;
        *)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 2
            ;;
    esac
}

main "$@"; exit    # in one line: bash reads on in a script that has been edited while it ran
