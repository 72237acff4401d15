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
