# A snakepit pool on a real BEAM, with the two HTTP/2 stacks that Elixir's gRPC library stands on: gun calls the workers,
# cowboy is called by them. It does to its workers what snakepit does, and prints what it saw as lines of JSON.
#
#     BEAM_LIBS=… elixir main.exs soak|hold '{"generation": "0.13", "command": […], "env": {…}, "directory": …, …}'

for path <- Path.wildcard(Path.join(System.fetch_env!("BEAM_LIBS"), "{gun,cowboy,cowlib,ranch,jsx}-*/ebin")),
    do: Code.append_path(path)

for part <- ~w(proto bridge_server client worker pool), do: Code.require_file("#{part}.exs", __DIR__)

{:ok, _} = Application.ensure_all_started(:gun)
{:ok, _} = Application.ensure_all_started(:cowboy)
[mode, options] = System.argv()
apply(Pool, String.to_existing_atom(mode), [:jsx.decode(options, [:return_maps])])
