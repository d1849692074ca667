# SPDX-License-Identifier: Apache-2.0
# fish completion for oci-bind-hook. What is marked as generated is written by hook/generate.py.

# generated: names
set -l stages prestart createRuntime createContainer poststop
set -l commands explain attach detach list show gc validate schema install uninstall doctor help
set -l schemas bind-request cdi config config-freebsd config-linux config-linux-resources config-process config-seccomp config-solaris config-used config-vm config-windows config-zos defs doctor gc hooks-check hooks-d hooks-d-old plan records registrations state state-file state-file-1 validation
# end
set -l hook "not __fish_seen_subcommand_from $commands"

complete -c oci-bind-hook -f
complete -c oci-bind-hook -n __fish_use_subcommand -a "$stages" -d 'as runtimes call it'
complete -c oci-bind-hook -n '__fish_seen_subcommand_from explain show gc' \
    -a '(path basename /run/oci-bind-hook/*.json | string match -rg "^([A-Za-z0-9_+.][A-Za-z0-9_+.-]*)\.json\$")'
complete -c oci-bind-hook -n '__fish_seen_subcommand_from explain validate' -F
complete -c oci-bind-hook -n '__fish_seen_subcommand_from schema' -a "$schemas"

# generated: commands
complete -c oci-bind-hook -n __fish_use_subcommand -a explain -d 'explain what the hook does for a bundle'
complete -c oci-bind-hook -n __fish_use_subcommand -a attach -d 'bind into a container that runs'
complete -c oci-bind-hook -n __fish_use_subcommand -a detach -d 'take a bind out of a container that runs'
complete -c oci-bind-hook -n __fish_use_subcommand -a list -d 'show what is recorded of all containers'
complete -c oci-bind-hook -n __fish_use_subcommand -a show -d 'show what is recorded of one container'
complete -c oci-bind-hook -n __fish_use_subcommand -a gc -d 'undo what dead containers and killed runs left'
complete -c oci-bind-hook -n __fish_use_subcommand -a validate -d 'print where a config.json or a state breaks the schemas'
complete -c oci-bind-hook -n __fish_use_subcommand -a schema -d 'list the JSON schemas of what the hook reads and prints'
complete -c oci-bind-hook -n __fish_use_subcommand -a install -d 'register the hook with engines'
complete -c oci-bind-hook -n __fish_use_subcommand -a uninstall -d 'remove what install wrote'
complete -c oci-bind-hook -n __fish_use_subcommand -a doctor -d 'show what this machine has of what the hook uses'
complete -c oci-bind-hook -n __fish_use_subcommand -a help -d 'print the help of a command or of options'
# end

# generated: options
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach" -l mount -x -d 'one more bind'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain" -l allow-annotations -d 'take binds from annotations of config.json as well'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain" -l allow-source -x -a '(__fish_complete_directories)' -d 'the sources that annotations may name are below DIR'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach detach list show gc" -l root -x -a '(__fish_complete_directories)' -d 'where the state files are'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from attach" -l dry-run -d 'explain what would be done'
complete -c oci-bind-hook -n "$hook" -l bundle -r -F -d 'explain this bundle'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach" -l format -x -a 'text tree json' -d 'what is printed'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach" -l all -d 'a line for each bind and each mount of the runtime'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach" -l strict -d 'refuse what breaks the schema anywhere in config.json'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach" -l allow-shared -d 'allow destinations below a mount that is shared with the host'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain detach gc" -l keep-mountpoints -d 'never remove mount points of an earlier call'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach detach gc" -l log -r -F -d 'append a log to FILE'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach detach gc" -l log-format -x -a 'text json' -d 'the log in lines of text'
complete -c oci-bind-hook -n "$hook; or __fish_seen_subcommand_from explain attach detach list show gc" -l debug -d 'report each step on stderr as well'
complete -c oci-bind-hook -l version -d 'print the version'
complete -c oci-bind-hook -l help -d 'print the usage and the commands'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from attach detach" -l bundle -x -a '(__fish_complete_directories)' -d 'the container of this bundle'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from attach detach" -l pid -x -d 'the container with this first process'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from attach" -l force -d 'attach what is to be read-only even if the container has CAP_SYS_ADMIN'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from detach" -l all -d 'all binds that are recorded'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from list show gc validate install doctor" -l format -x -a 'text json' -d 'what is printed'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from gc" -l dry-run -d 'show what would be undone'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from schema" -l bundled -d 'as one document that refers to nothing outside'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l prefix -x -a '(__fish_complete_directories)' -d 'below which the launcher and the hooks.d file are'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l name -x -d 'the name of one registration of several'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l hooks-dir -x -a '(__fish_complete_directories)' -d 'the folder for the hooks.d file'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l stages -x -a "$stages" -d 'when the hook is called'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l annotation -x -d 'for containers with just this annotation'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l command -x -d 'for containers whose command matches'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l has-bind-mounts -d 'for containers with bind mounts'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l always -d 'for all containers'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l cdi -x -d 'for containers that ask for the CDI device oci-bind-hook.github.io/bind=NAME'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l cdi-dir -x -a '(__fish_complete_directories)' -d 'the folder for CDI files'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l env -x -d 'with --cdi'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l runtime -x -d 'for containers that are started with the runtime NAME'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l oci-runtime -x -d 'with --runtime'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l apply -d 'with --runtime'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l gc-timer -d 'write a systemd timer as well that calls gc each hour'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install uninstall" -l units-dir -x -a '(__fish_complete_directories)' -d 'the folder for the timer'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l check -d 'explain hooks.d and CDI folders'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from install" -l list -d 'show what registers the hook'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from uninstall" -l all -d 'remove every trace'
# end
