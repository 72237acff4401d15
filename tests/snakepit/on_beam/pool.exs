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
    |> Enum.map(fn number -> Task.async(fn -> life(options["generation"], options, number, bridge) end) end)
    |> Task.await_many(:infinity)

    say(%{"asked_of_elixir" => BridgeServer.asked()})
  end

  # Everything a pool does with one worker; the task that runs it owns the worker's port and connection.
  defp life("0.4", options, number, bridge) do
    worker = Worker.start(options, number, bridge)
    work(worker, options)
    crashed(worker)
    replaced = Worker.start(options, number, bridge)
    {:ok, %{"success" => told}} = Worker.execute(replaced, "execute_program", leaves_a_process(), 10_000)
    pids = [worker.pid, replaced.pid, told["prediction"]["answer"]]
    # All that its signals reach is the pid of setsid; that its standard input ends is what the worker learns.
    Port.close(replaced.port)
    say(%{"closed" => Enum.map(pids, &Worker.gone_within(&1, 2000)), "pids" => pids})
  end

  defp life("0.13", options, number, bridge) do
    worker = Worker.start(options, number, bridge)
    monitor = watch(worker, options["heartbeat_ms"])
    telemetry = Task.async(fn -> telemetry(worker) end)
    work(worker, options)
    say(%{"telemetry" => Task.await(telemetry, 20_000)})

    for what <- options["burners"] do
      program = %{"program_spec" => %{"python_class" => "Burns"}}
      program = Map.put(program, "inputs", %{"what" => what, "seconds" => options["burn_seconds"]})
      {:ok, %{"success" => _}} = Worker.execute(worker, "execute_program", program, 600_000)
    end

    say(%{"heartbeats" => stop(monitor)})
    crashed(worker)
    replaced = Worker.start(options, number, bridge)
    {:ok, %{"success" => _}} = Worker.execute(replaced, "execute_program", elem(hd(@kinds), 1), 10_000)
    running = Task.async(fn -> Worker.execute(replaced, "execute_program", asks("Sleeps"), 30_000) end)
    until(fn -> match?({:ok, %{"running" => 1}}, Worker.execute(replaced, "worker_status", %{}, 5000)) end)
    Worker.signal(replaced, "TERM")
    # gun 1, which there is here, ends all calls at a GOAWAY; gun 2, which pools have, those that will not be answered.
    last =
      case Task.await(running, 10_000) do
        {:ok, %{"failure" => failure}} -> failure["kind"]
        {:error, _} -> "error"
      end

    say(%{"stopped" => Worker.exit_status(replaced, 6000), "last" => last, "pids" => [worker.pid, replaced.pid]})
  end

  defp work(worker, options) do
    {time, outcomes} = :timer.tc(fn -> trials(worker, options["calls"]) end)
    say(%{"outcomes" => outcomes, "calls_per_second" => options["calls"] / time * 1.0e6})
    say(%{"streamed" => streamed(worker)})
    say(%{"abandoned" => abandoned(worker)})
    say(%{"large" => large(worker), "through_elixir" => through_elixir(worker)})
  end

  defp crashed(worker) do
    call = Task.async(fn -> Worker.execute(worker, "execute_program", asks("Crashes"), 10_000) end)
    say(%{"crash" => [Worker.exit_status(worker, 10_000), call |> Task.await(30_000) |> elem(0) |> Atom.to_string()]})
  end

  defp until(condition), do: condition.() || (Process.sleep(20) && until(condition))
  defp asks(class), do: %{"program_spec" => %{"python_class" => class}, "inputs" => %{"question" => "x"}}
  defp leaves_a_process, do: asks("LeavesAProcess")

  defp trials(worker, count) do
    for number <- 1..count, reduce: %{} do
      seen ->
        {wanted, parameters} = Enum.at(@kinds, rem(number, length(@kinds)))
        parameters = Map.put(parameters, "trial_id", "trial-#{number}")

        {:ok, outcome} =
          Worker.execute(worker, "execute_program", parameters, 10_000, correlation: "correlation-#{number}")

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
    caller = spawn(fn -> Worker.execute(worker, "execute_program", asks("Sleeps"), 1000) end)
    Process.sleep(300)
    Process.exit(caller, :kill)
    {:ok, %{"success" => _}} = Worker.execute(worker, "execute_program", elem(hd(@kinds), 1), 10_000)
    true
  end

  # More than a window of HTTP/2 holds, each way; in a tool's bytes, and in what it returns.
  defp large(worker) do
    {:ok, size} = Worker.execute(worker, "size", %{}, 30_000, binary: [{"data", String.duplicate("x", 12_000_000)}])
    {:ok, text} = Worker.execute(worker, "letters", %{"count" => 12_000_000}, 30_000)
    [size, byte_size(text)]
  end

  # A program that calls a tool of Elixir's with a megabyte, and gets two.
  defp through_elixir(worker) do
    spec = %{"python_class" => "UsesATool", "dependencies" => %{"tool" => %{"elixir_tool" => "double"}}}
    inputs = %{"text" => String.duplicate("x", 1_000_000)}
    parameters = %{"program_spec" => spec, "inputs" => inputs, "session_id" => "optimise-7"}
    {:ok, %{"success" => told}} = Worker.execute(worker, "execute_program", parameters, 30_000)
    byte_size(told["prediction"]["answer"])
  end

  defp telemetry(worker) do
    path = "/snakepit.bridge.BridgeService/StreamTelemetry"
    call = :gun.post(worker.connection, path, Client.headers(5000))
    :gun.data(worker.connection, call, :nofin, Frames.frame(Proto.field(1, Proto.field(1, 1))))

    case Client.read(worker.connection, call, 10_000) do
      {:ok, events} -> %{"events" => length(events)}
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
    {:ok, %{"success" => told}} = Worker.execute(busy, "execute_program", leaves_a_process(), 10_000)
    spawn(fn -> Worker.execute(busy, "execute_program", asks("Sleeps"), 60_000) end)
    say(%{"pids" => [told["prediction"]["answer"] | Enum.map(workers, & &1.pid)]})
    Process.sleep(120_000)
  end
end
