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

  defp reply("GetExposedElixirTools", _) do
    parameter = [field(1, "text"), field(2, "string"), field(3, "What to write twice."), field(4, 1)]
    field(1, [field(1, "double"), field(2, "Writes a text twice."), field(3, parameter)])
  end

  defp reply("ExecuteElixirTool", request) do
    %{"text" => text} = entries(request, 3)
    [field(1, 1), field(2, json(text <> text))]
  end

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
