defmodule Worker do
  @moduledoc "One Python process, from its start to its end. Its port and its connection belong to the calling process."
  import Proto

  defstruct [:port, :pid, :connection, :session]

  def start(%{"generation" => "0.4"} = options, _number, bridge) do
    arguments = ["--port", "#{free_port()}", "--elixir-address", "localhost:#{bridge}", "--snakepit-run-id", run()]
    port = open([System.find_executable("setsid") | options["command"]] ++ arguments, options["env"])
    connection = port |> announced("", 60_000) |> Client.open()
    worker = %__MODULE__{port: port, connection: connection, session: "default_session"}
    {:ok, _} = Client.call(connection, "Ping", field(1, "connection_test"), 5000)
    # The pid that the pool knows is that of a setsid which has forked.
    {:ok, %{"pid" => pid}} = execute(worker, "worker_status", %{}, 5000)
    %{worker | pid: pid}
  end

  def start(options, number, bridge) do
    ready = Path.join(options["directory"], "ready_#{number}_#{System.unique_integer([:positive])}")
    arguments = ["--port", "0", "--elixir-address", "localhost:#{bridge}", "--snakepit-run-id", run()]
    env = Map.merge(options["env"], %{"SNAKEPIT_READY_FILE" => ready, "SNAKEPIT_PROCESS_GROUP" => "1"})
    port = open(options["command"] ++ arguments ++ ["--snakepit-instance-name", "beam"], env)
    {:os_pid, pid} = Port.info(port, :os_pid)
    connection = ready |> number_in(600) |> Client.open()
    {:ok, _} = Client.call(connection, "Ping", field(1, "connection_test"), 5000)
    session = "session_#{number}_#{System.os_time(:microsecond)}"
    {:ok, _} = Client.call(connection, "InitializeSession", field(1, session), 5000)
    %__MODULE__{port: port, pid: pid, connection: connection, session: session}
  end

  defp run, do: "run#{System.pid()}"

  defp open([executable | arguments], env) do
    env = for {name, value} <- env, do: {String.to_charlist(name), String.to_charlist(value)}
    Port.open({:spawn_executable, executable}, [:binary, :exit_status, :stderr_to_stdout, args: arguments, env: env])
  end

  defp free_port do
    {:ok, listener} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, number} = :inet.port(listener)
    :gen_tcp.close(listener)
    number
  end

  defp announced(port, output, timeout) do
    case Regex.run(~r/^GRPC_READY:(\d+)$/m, output) do
      [_, number] ->
        String.to_integer(number)

      nil ->
        receive do
          {^port, {:data, more}} -> announced(port, output <> more, timeout)
        after
          timeout -> raise "it never was ready: #{output}"
        end
    end
  end

  defp number_in(path, tries) when tries > 0 do
    case File.read(path) do
      {:ok, text} -> String.to_integer(text)
      {:error, :enoent} -> Process.sleep(50) && number_in(path, tries - 1)
    end
  end

  def execute(worker, tool, parameters, timeout, more \\ []) do
    correlation = [{"x-snakepit-correlation-id", Keyword.get(more, :correlation, "c")}]
    binary = for {name, value} <- Keyword.get(more, :binary, []), do: entry(6, name, value)
    request = [request(worker, tool, parameters), binary]

    with {:ok, reply} <- Client.call(worker.connection, "ExecuteTool", request, timeout, correlation) do
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

  @doc "How many milliseconds a process needs to end; nil if it doesn't."
  def gone_within(pid, timeout, waited \\ 0) do
    cond do
      not alive?(pid) -> waited
      waited >= timeout -> nil
      true -> Process.sleep(20) && gone_within(pid, timeout, waited + 20)
    end
  end

  # A process that has ended and that nobody has asked about yet does not run.
  defp alive?(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} -> stat |> String.split(") ") |> List.last() |> String.first() != "Z"
      {:error, _} -> false
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
