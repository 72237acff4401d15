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

  @doc "A map field whose values are JSON in an Any."
  def entries(message, number) do
    for entry <- Map.get(message, number, []), entry = decode(entry), into: %{} do
      {one(entry, 1), entry |> one(2) |> decode() |> one(2) |> :jsx.decode([:return_maps])}
    end
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
