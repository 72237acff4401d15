# A snakepit pool on a real BEAM, with the two HTTP/2 stacks that Elixir's gRPC library stands on: gun calls the workers,
# cowboy is called by them. It does to its workers what snakepit 0.13 does, and prints what it saw as lines of JSON.
#
#     BEAM_LIBS=… elixir pool.exs soak|hold '{"command": […], "env": {…}, "directory": …, "workers": 2, "calls": 100, …}'

for path <- Path.wildcard(Path.join(System.fetch_env!("BEAM_LIBS"), "{gun,cowboy,cowlib,ranch,jsx}-*/ebin")),
    do: Code.append_path(path)

defmodule Proto do
  @moduledoc "As much of protobuf as the bridge's messages need: a message is a map of field number to values."
  import Bitwise

  def field(number, value) when is_integer(value), do: [varint(number <<< 3), varint(value)]
  def field(number, value), do: [varint(number <<< 3 ||| 2), varint(IO.iodata_length(value)), value]
  def entry(number, key, value), do: field(number, [field(1, key), field(2, value)])
  def json(value), do: [field(1, "type.googleapis.com/google.protobuf.StringValue"), field(2, :jsx.encode(value))]

  def decode(""), do: %{}

  def decode(data) do
    {tag, rest} = unvarint(data)
    {value, rest} = value(tag &&& 7, rest)
    Map.update(decode(rest), tag >>> 3, [value], &[value | &1])
  end

  def one(message, number, default \\ ""), do: message |> Map.get(number, [default]) |> List.last()

  defp value(0, data), do: unvarint(data)
  defp value(1, <<value::64-little, rest::binary>>), do: {value, rest}
  defp value(5, <<value::32-little, rest::binary>>), do: {value, rest}

  defp value(2, data) do
    {size, rest} = unvarint(data)
    <<value::binary-size(size), rest::binary>> = rest
    {value, rest}
  end

  defp varint(value) when value < 128, do: <<value>>
  defp varint(value), do: [<<1::1, value::7>>, varint(value >>> 7)]
  defp unvarint(<<0::1, value::7, rest::binary>>), do: {value, rest}

  defp unvarint(<<1::1, low::7, rest::binary>>) do
    {high, rest} = unvarint(rest)
    {high <<< 7 ||| low, rest}
  end
end

defmodule Frames do
  def frame(message), do: [<<0, IO.iodata_length(message)::32>>, message]

  def unframe(<<0, size::32, message::binary-size(size), rest::binary>>) do
    {messages, rest} = unframe(rest)
    {[message | messages], rest}
  end

  def unframe(rest), do: {[], rest}
end

defmodule BridgeServer do
  @moduledoc "What workers ask of Elixir, on cowboy."
  import Proto

  @variables %{"temperature" => {"float", 0.5}, "name" => {"string", "Ada"}}

  def start do
    :ets.new(:asked, [:named_table, :public])
    routes = :cowboy_router.compile([{:_, [{"/[...]", __MODULE__, []}]}])
    options = %{env: %{dispatch: routes}, protocols: [:http2]}
    {:ok, _} = :cowboy.start_clear(:bridge, [ip: {127, 0, 0, 1}, port: 0], options)
    :ranch.get_port(:bridge)
  end

  def asked, do: Map.new(:ets.tab2list(:asked))

  def init(request, state) do
    name = request |> :cowboy_req.path() |> String.split("/") |> List.last()
    :ets.update_counter(:asked, name, 1, {name, 0})
    {:ok, body, request} = :cowboy_req.read_body(request)
    {[message], ""} = Frames.unframe(body)
    headers = %{"content-type" => "application/grpc+proto"}

    case reply(name, decode(message)) do
      {:error, status} ->
        headers = Map.merge(headers, %{"grpc-status" => "#{status}", "grpc-message" => "not here"})
        {:ok, :cowboy_req.reply(200, headers, request), state}

      reply ->
        request = :cowboy_req.stream_reply(200, headers, request)
        :cowboy_req.stream_body(Frames.frame(reply), :nofin, request)
        :cowboy_req.stream_trailers(%{"grpc-status" => "0", "grpc-message" => ""}, request)
        {:ok, request, state}
    end
  end

  defp reply("Ping", request), do: field(1, "pong: #{one(request, 1)}")
  defp reply("InitializeSession", _), do: field(1, 1)
  defp reply("RegisterTools", _), do: field(1, 1)
  defp reply("Heartbeat", _), do: field(2, 1)
  defp reply("GetExposedElixirTools", _), do: []
  defp reply("GetSession", request), do: field(1, one(request, 1))
  defp reply("CleanupSession", _), do: field(1, 1)

  defp reply("GetVariables", request) do
    for name <- Map.get(request, 2, []) do
      case @variables do
        %{^name => {type, value}} ->
          variable = [field(1, "var_#{name}"), field(2, name), field(3, type), field(4, json(value)), field(9, 1)]
          entry(1, name, variable)

        _ ->
          field(2, name)
      end
    end
  end

  defp reply(_, _), do: {:error, 12}
end

defmodule Client do
  @moduledoc "Calls over gun, the way Elixir's gRPC library makes them: whole units of time, twice as long, no resets."
  import Proto

  def open(port) do
    options = %{transport: :tcp, protocols: [:http2], retry: 0}
    {:ok, connection} = :gun.open('localhost', port, options)
    {:ok, :http2} = :gun.await_up(connection, 10_000)
    connection
  end

  def headers(timeout, more \\ []) do
    [
      {"content-type", "application/grpc+proto"},
      {"te", "trailers"},
      {"user-agent", "grpc-elixir/0.10.2 (gun/2.2.0; adapter: GRPC.Client.Adapters.Gun)"},
      {"grpc-timeout", units(timeout)} | more
    ]
  end

  def call(connection, name, message, timeout, more \\ []) do
    with {:ok, [reply]} <- stream(connection, name, message, timeout, more), do: {:ok, decode(reply)}
  end

  def stream(connection, name, message, timeout, more \\ []) do
    path = "/snakepit.bridge.BridgeService/#{name}"
    body = IO.iodata_to_binary(Frames.frame(message))
    call = :gun.post(connection, path, headers(timeout, more), body, %{reply_to: self()})
    read(connection, call, timeout * 2)
  end

  def read(connection, call, timeout) do
    case :gun.await(connection, call, timeout) do
      {:response, :fin, 200, headers} -> ended(headers, [])
      {:response, :nofin, 200, _} -> body(connection, call, timeout, "")
      other -> {:error, inspect(other)}
    end
  end

  defp body(connection, call, timeout, data) do
    case :gun.await(connection, call, timeout) do
      {:data, :nofin, more} ->
        body(connection, call, timeout, data <> more)

      {:trailers, trailers} ->
        {messages, ""} = Frames.unframe(data)
        ended(trailers, messages)

      other ->
        {:error, inspect(other)}
    end
  end

  defp ended(headers, messages) do
    case List.keyfind(headers, "grpc-status", 0) do
      {_, "0"} -> {:ok, messages}
      {_, status} -> {:status, String.to_integer(status), messages}
      nil -> {:error, "no status in #{inspect(headers)}"}
    end
  end

  defp units(ms) when ms >= 60_000, do: "#{div(ms, 60_000)}M"
  defp units(ms) when ms >= 1000, do: "#{div(ms, 1000)}S"
  defp units(ms), do: "#{ms}m"
end

defmodule Worker do
  @moduledoc "One Python process, from its start to its end. Its port and its connection belong to the calling process."
  import Proto

  defstruct [:port, :pid, :connection, :session, :monitor]

  def start(options, number, bridge) do
    ready = Path.join(options["directory"], "ready_#{number}_#{System.unique_integer([:positive])}")
    [executable | arguments] = options["command"]

    arguments =
      arguments ++
        ["--port", "0", "--elixir-address", "localhost:#{bridge}", "--snakepit-run-id", "run#{System.pid()}"] ++
        ["--snakepit-instance-name", "beam"]

    env = Map.merge(options["env"], %{"SNAKEPIT_READY_FILE" => ready, "SNAKEPIT_PROCESS_GROUP" => "1"})
    env = for {name, value} <- env, do: {String.to_charlist(name), String.to_charlist(value)}

    port =
      Port.open({:spawn_executable, executable}, [:binary, :exit_status, :stderr_to_stdout, args: arguments, env: env])

    {:os_pid, pid} = Port.info(port, :os_pid)
    connection = ready |> number_in(600) |> Client.open()
    {:ok, _} = Client.call(connection, "Ping", field(1, "connection_test"), 5000)
    session = "session_#{number}_#{System.os_time(:microsecond)}"
    {:ok, _} = Client.call(connection, "InitializeSession", field(1, session), 5000)
    %__MODULE__{port: port, pid: pid, connection: connection, session: session}
  end

  defp number_in(path, tries) when tries > 0 do
    case File.read(path) do
      {:ok, text} -> String.to_integer(text)
      {:error, :enoent} -> Process.sleep(50) && number_in(path, tries - 1)
    end
  end

  def execute(worker, tool, parameters, timeout, correlation \\ "c") do
    with {:ok, reply} <-
           Client.call(worker.connection, "ExecuteTool", request(worker, tool, parameters), timeout, [
             {"x-snakepit-correlation-id", correlation}
           ]) do
      if one(reply, 1, 0) == 1,
        do: {:ok, reply |> one(2) |> decode() |> one(2) |> :jsx.decode([:return_maps])},
        else: {:failed, one(reply, 3)}
    end
  end

  def chunks(worker, tool, parameters, timeout) do
    message = [request(worker, tool, parameters), field(5, 1)]

    with {:ok, chunks} <- Client.stream(worker.connection, "ExecuteStreamingTool", message, timeout) do
      {data, [last]} = chunks |> Enum.map(&decode/1) |> Enum.split(-1)
      1 = one(last, 3, 0)
      {:ok, for(chunk <- data, do: chunk |> one(2) |> :jsx.decode([:return_maps]))}
    end
  end

  defp request(worker, tool, parameters) do
    [field(1, worker.session), field(2, tool), for({name, value} <- parameters, do: entry(3, name, json(value)))]
  end

  def heartbeat(worker, timeout) do
    began = System.monotonic_time(:microsecond)

    with {:ok, reply} <- Client.call(worker.connection, "Heartbeat", field(1, worker.session), timeout) do
      if one(reply, 2, 0) == 1,
        do: {:ok, (System.monotonic_time(:microsecond) - began) / 1000},
        else: {:error, "the session is not valid"}
    end
  end

  def signal(worker, signal), do: System.cmd("kill", ["-#{signal}", "--", "-#{worker.pid}"], stderr_to_stdout: true)

  def exit_status(worker, timeout) do
    port = worker.port

    receive do
      {^port, {:exit_status, status}} -> status
      {^port, {:data, _}} -> exit_status(worker, timeout)
    after
      timeout -> nil
    end
  end
end

defmodule Pool do
  @kinds [
    {"success", %{"program_spec" => %{"python_class" => "Echo"}, "inputs" => %{"question" => "x"}}},
    {"success",
     %{
       "program_spec" => %{"python_class" => "Echo", "config_space" => %{"greeting" => "name"}},
       "inputs" => %{"question" => "x"},
       "session_id" => "optimise-7"
     }},
    {"PROGRAM_ERROR", %{"program_spec" => %{"python_class" => "Raises"}, "inputs" => %{"question" => "x"}}},
    {"DEADLINE_EXCEEDED",
     %{"program_spec" => %{"python_class" => "Sleeps"}, "inputs" => %{"question" => "x"}, "timeout_ms" => 80}},
    {"CLASS_NOT_FOUND", %{"program_spec" => %{"python_class" => "Ecko"}}},
    {"IMPORT_NOT_ALLOWED", %{"program_spec" => %{"python_class" => "os.path"}}},
    {"INVALID_INPUT", %{"program_spec" => %{"python_class" => "Echo"}, "inputs" => %{"questoin" => "x"}}}
  ]

  def say(found), do: IO.puts(:jsx.encode(found))

  def soak(options) do
    bridge = BridgeServer.start()

    1..options["workers"]
    |> Enum.map(fn number -> Task.async(fn -> life(options, number, bridge) end) end)
    |> Task.await_many(:infinity)

    say(%{"asked_of_elixir" => BridgeServer.asked()})
  end

  # Everything a pool does with one worker; the task that runs it owns the worker's port and connection.
  defp life(options, number, bridge) do
    worker = Worker.start(options, number, bridge)
    monitor = watch(worker, options["heartbeat_ms"])
    telemetry = Task.async(fn -> telemetry(worker) end)
    {time, outcomes} = :timer.tc(fn -> trials(worker, options["calls"]) end)
    say(%{"outcomes" => outcomes, "calls_per_second" => options["calls"] / time * 1.0e6})
    say(%{"streamed" => streamed(worker)})
    say(%{"abandoned" => abandoned(worker)})
    say(%{"telemetry" => Task.await(telemetry, 20_000)})

    for what <- options["burners"] do
      program = %{"program_spec" => %{"python_class" => "Burns"}}
      program = Map.put(program, "inputs", %{"what" => what, "seconds" => options["burn_seconds"]})
      {:ok, %{"success" => _}} = Worker.execute(worker, "execute_program", program, 600_000)
    end

    say(%{"heartbeats" => stop(monitor)})
    crash = %{"program_spec" => %{"python_class" => "Crashes"}, "inputs" => %{"question" => "x"}}
    call = Task.async(fn -> Worker.execute(worker, "execute_program", crash, 10_000) end)
    say(%{"crash" => [Worker.exit_status(worker, 10_000), call |> Task.await(30_000) |> elem(0) |> Atom.to_string()]})

    replaced = Worker.start(options, number, bridge)
    {:ok, %{"success" => _}} = Worker.execute(replaced, "execute_program", elem(hd(@kinds), 1), 10_000)
    Worker.signal(replaced, "TERM")
    say(%{"stopped" => Worker.exit_status(replaced, 6000), "pids" => [worker.pid, replaced.pid]})
  end

  defp trials(worker, count) do
    for number <- 1..count, reduce: %{} do
      seen ->
        {wanted, parameters} = Enum.at(@kinds, rem(number, length(@kinds)))
        parameters = Map.put(parameters, "trial_id", "trial-#{number}")
        {:ok, outcome} = Worker.execute(worker, "execute_program", parameters, 10_000, "correlation-#{number}")
        [{kind, told}] = Map.to_list(outcome)
        found = told |> Map.get("kind", kind) |> String.replace_prefix("FAILURE_KIND_", "")
        right = found == wanted and told["trial_id"] == "trial-#{number}" and answer(parameters, told)
        Map.update(seen, if(right, do: wanted, else: "WRONG #{wanted}: #{found}"), 1, &(&1 + 1))
    end
  end

  defp answer(%{"session_id" => _}, told), do: told["prediction"]["answer"] == "Ada, x"
  defp answer(_, _), do: true

  defp streamed(worker) do
    {:ok, events} = Worker.chunks(worker, "execute_program", elem(hd(@kinds), 1), 10_000)
    Enum.map(events, fn event -> event |> Map.keys() |> Enum.join(",") end)
  end

  # The pool's own caller stops waiting and resets nothing; the worker alone ends the trial. The next one finds its slot.
  defp abandoned(worker) do
    slow = %{"program_spec" => %{"python_class" => "Sleeps"}, "inputs" => %{"question" => "x"}}
    caller = spawn(fn -> Worker.execute(worker, "execute_program", slow, 1000) end)
    Process.sleep(300)
    Process.exit(caller, :kill)
    {:ok, %{"success" => _}} = Worker.execute(worker, "execute_program", elem(hd(@kinds), 1), 10_000)
    true
  end

  defp telemetry(worker) do
    path = "/snakepit.bridge.BridgeService/StreamTelemetry"
    call = :gun.post(worker.connection, path, Client.headers(5000))
    :gun.data(worker.connection, call, :nofin, Frames.frame(Proto.field(1, Proto.field(1, 1))))

    case Client.read(worker.connection, call, 10_000) do
      {:status, status, events} -> %{"status" => status, "events" => length(events)}
      other -> %{"error" => inspect(other)}
    end
  end

  defp watch(worker, every) do
    pool = self()
    spawn_link(fn -> beat(worker, every, pool, %{"answered" => 0, "slowest_ms" => 0.0, "missed" => ""}) end)
  end

  defp beat(worker, every, pool, seen) do
    receive do
      :stop -> send(pool, {:heartbeats, seen})
    after
      every ->
        case Worker.heartbeat(worker, 1000) do
          {:ok, ms} when ms < 1000 ->
            seen = %{seen | "answered" => seen["answered"] + 1, "slowest_ms" => max(seen["slowest_ms"], ms)}
            beat(worker, every, pool, seen)

          missed ->
            beat(worker, every, pool, %{seen | "missed" => inspect(missed)})
        end
    end
  end

  defp stop(monitor) do
    send(monitor, :stop)
    receive(do: ({:heartbeats, seen} -> seen))
  end

  def hold(options) do
    bridge = BridgeServer.start()
    workers = for number <- 1..options["workers"], do: Worker.start(options, number, bridge)
    [busy | _] = workers
    program = %{"program_spec" => %{"python_class" => "LeavesAProcess"}, "inputs" => %{"question" => "x"}}
    {:ok, %{"success" => told}} = Worker.execute(busy, "execute_program", program, 10_000)
    slow = %{"program_spec" => %{"python_class" => "Sleeps"}, "inputs" => %{"question" => "x"}}
    spawn(fn -> Worker.execute(busy, "execute_program", slow, 60_000) end)
    say(%{"pids" => [told["prediction"]["answer"] | Enum.map(workers, & &1.pid)]})
    Process.sleep(120_000)
  end
end

{:ok, _} = Application.ensure_all_started(:gun)
{:ok, _} = Application.ensure_all_started(:cowboy)
[mode, options] = System.argv()
apply(Pool, String.to_existing_atom(mode), [:jsx.decode(options, [:return_maps])])
