# Every recipe makes and reuses .venv by itself. PYTHON names the interpreter it is made with (3.11 or newer).

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

python := env("PYTHON", "python3")
bin := justfile_directory() / ".venv/bin"
h2-4 := justfile_directory() / ".venv/h2-4.4.1"
arrays := justfile_directory() / ".venv/arrays-2.4.6-3.1.1"

# List the recipes
[private]
default:
    @{{just_executable()}} --list --unsorted

# Run real trials end to end on this machine and show what became of them
demo *arguments: (_venv "runtime")
    @{{bin}}/dspex-trio demo "$@"

# Run a worker; the arguments are those of `dspex-trio serve`
serve *arguments: (_venv "runtime")
    @{{bin}}/dspex-trio serve "$@"

# Run the tests, two files at a time; the arguments are pytest's (-n 0 for one process)
test *arguments: (_venv "dev")
    @{{bin}}/python -m pytest -n 2 --dist loadfile "$@"

# Run the races between a trial's ends under a thousand schedules; --dspex-seeds N for another number
test-races *arguments: (_venv "dev")
    @{{bin}}/python -m pytest tests/testing/test_races.py --dspex-seeds 1000 "$@"

# Run the tests of the RPC layer on h2 4, which purerpc's own requirements do not let pip install
test-h2-4 *arguments: (_venv "dev")
    @[ -e {{h2-4}}/.complete ] || { {{bin}}/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
        --target {{h2-4}} h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0 && touch {{h2-4}}/.complete; }
    @PYTHONPATH={{h2-4}} {{bin}}/python -c 'import h2; print("h2", h2.__version__)'
    @PYTHONPATH={{h2-4}} {{bin}}/python -m pytest tests/rpc "$@"

# Run the tests of values that numpy and pandas themselves make, without which everything works as well
test-arrays *arguments: (_venv "dev")
    @[ -e {{arrays}}/.complete ] || { {{bin}}/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
        --target {{arrays}} numpy==2.4.6 pandas==3.1.1 python-dateutil==2.9.0.post0 six==1.17.0 && touch {{arrays}}/.complete; }
    @PYTHONPATH={{arrays}} {{bin}}/python -m pytest tests/test_values.py -k itself "$@"

# Run what purerpc's own server and client do not survive on them as well: each test must fail there
test-stock *arguments: (_venv "dev")
    @DSPEX_TRIO_TEST_STOCK=1 {{bin}}/python -m pytest tests/rpc/test_rows.py tests/rpc/test_rows_missing.py -k stock -n 4 "$@"

# Run gRPC's interoperability cases both ways against grpcio, grpc-js and raw frames
interop *arguments: (_venv "dev")
    @{{bin}}/python tools/interop.py "$@"

# Run h2spec's 146 cases, rewritten as tests, against the server
h2spec *arguments: (_venv "dev")
    @{{bin}}/python -m pytest -q tests/rpc/test_h2spec.py "$@"

# Fuzz the RPC server with mutated recordings of real connections: --count, --seed, --replay
fuzz-rpc *arguments: (_venv "dev")
    @{{bin}}/python tools/fuzz_rpc.py "$@"

# Fuzz every decoder with mutations of what it reads: --seconds, --seed, --replay
fuzz-decoders *arguments: (_venv "dev")
    @{{bin}}/python tools/fuzz_decoders.py "$@"

# Flood the RPC server in every known way and measure what a well-behaved client notices
flood-rpc *arguments: (_venv "dev")
    @{{bin}}/python tools/flood_rpc.py "$@"

# Make tens of thousands of calls that are cancelled, too late or cut off, and look for what is left of them
soak-rpc *arguments: (_venv "dev")
    @{{bin}}/python tools/soak_rpc.py "$@"

# Kill a session store again and again under trials that read it: --seconds, --rate, --kills, --outage, --slots
stress-store *arguments: (_venv "dev")
    @{{bin}}/python tools/stress_store.py "$@"

# Soak a pool of snakepit workers: thousands of trials, heartbeats while trials compute, crashes, kill -9 of the BEAM
soak-snakepit *arguments: (_venv "dev")
    @{{bin}}/python -m tests.snakepit.soak "$@"

# The same under a real BEAM, which reaches the workers with gun and cowboy; needs Elixir, and BEAM_LIBS or rabbitmq-server
soak-beam *arguments: (_venv "dev")
    @{{bin}}/python -m tests.snakepit.real_beam "$@"

# Cancel a third of 100,000 jobs in threads at random times, and look for what reached another one or stayed behind
stress-threads *arguments: (_venv "dev")
    @{{bin}}/python tools/stress_threads.py "$@"

# The same with whole trials: --trials, --at-once, --seed
stress-trials *arguments: (_venv "dev")
    @{{bin}}/python tools/stress_trials.py "$@"

# Compare trace, usage and cost of 1,000 mixed concurrent trials with the provider's own books: --trials, --at-once, --engine
check-books *arguments: (_venv "dev")
    @{{bin}}/python -m tests.books.run "$@"

# Check format, lint, types, layers, async rules and that generated code is current
check: (_venv "dev")
    {{bin}}/ruff format --check --quiet
    {{bin}}/ruff check --quiet
    {{bin}}/mypy
    {{bin}}/lint-imports --no-logo
    git ls-files 'src/*.py' 'tools/*.py' | grep -v generated/ | xargs {{bin}}/flake8-async --startable-in-context-manager=_serve_calls,accept,run_child,serve_runtime,serve_worker
    {{bin}}/python tools/generate_protos.py --check

# Format the code and mend what ruff can mend
fmt: (_venv "dev")
    {{bin}}/ruff format
    {{bin}}/ruff check --fix

# Regenerate the protobuf modules from protos/
protos: (_venv "dev")
    {{bin}}/python tools/generate_protos.py

# Measure CPU per trial, throughput, start-up and deadline lateness against bare DSPy
bench *arguments: (_venv "dev")
    @{{bin}}/python tools/bench.py "$@"

# Measure what timed-out trials leave running, and how late their failures are, beside stock DSPy with a timeout
bench-deadlines *arguments: (_venv "dev")
    @{{bin}}/python tools/bench_deadlines.py "$@"

# Measure a worker under the load of a stock client: --levels 8,32,… --seconds, --executors, --queued 10000, --cpu-trials, --burners
bench-load *arguments: (_venv "dev")
    @{{bin}}/python tools/bench_load.py "$@"

# Measure what a call that hangs costs here and in other systems, which are installed on demand: --calls, --slots, --only
bench-peers *arguments: (_venv "dev")
    @{{bin}}/python tools/bench_peers.py "$@"

# Measure CPU per call, throughput and latency of the RPC layer against purerpc, grpclib and grpcio
bench-rpc *arguments: (_venv "bench")
    @{{bin}}/python tools/bench_rpc.py "$@"

# Measure the session store with a file beside the disk and bare SQLite: --writes
bench-persist *arguments: (_venv "dev")
    @{{bin}}/python tools/bench_persist.py "$@"

# Measure how fast virtual time passes: the demo's trials through a system in memory; --latency, --rounds
bench-kit *arguments: (_venv "dev")
    @{{bin}}/python tools/bench_kit.py "$@"

# Install what the recipe needs, unless the last run already did: "runtime", "dev" or "bench"
_venv kind:
    @{{python}} tools/venv.py {{kind}}

# Assemble CHANGELOG.md from the fragments in changelog.d
changelog: (_venv "runtime")
    @{{bin}}/python tools/changelog.py

# Pin the newest versions that fit into constraints.txt
lock: (_venv "dev")
    {{bin}}/python -m pip install --quiet uv
    { echo '# Pinned versions of everything that .venv may hold; made by `just lock`.'; echo 'pip==26.3'; \
      {{bin}}/uv pip compile --quiet --universal --upgrade --python-version 3.11 --group dev --group bench \
        --no-header --no-annotate --no-emit-index-url pyproject.toml; } > constraints.new
    mv constraints.new constraints.txt
