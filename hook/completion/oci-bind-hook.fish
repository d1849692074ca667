# SPDX-License-Identifier: Apache-2.0
# fish completion for oci-bind-hook.

set -l stages prestart createRuntime createContainer poststop
set -l commands list show gc validate install uninstall doctor
set -l hook "not __fish_seen_subcommand_from $commands"
set -l of install

complete -c oci-bind-hook -f
complete -c oci-bind-hook -n __fish_use_subcommand -a "$stages" -d 'as runtimes call it'
complete -c oci-bind-hook -n __fish_use_subcommand -a "$commands"

complete -c oci-bind-hook -n "$hook" -l mount -x -d 'one more bind'
complete -c oci-bind-hook -n "$hook" -l allow-annotations -d 'take binds from annotations'
complete -c oci-bind-hook -n "$hook" -l allow-source -x -a '(__fish_complete_directories)'
complete -c oci-bind-hook -n "$hook" -l bundle -x -a '(__fish_complete_directories)' -d 'explain this bundle'
complete -c oci-bind-hook -n "$hook" -l strict -d 'refuse any violation of the schema'
complete -c oci-bind-hook -n "$hook" -l allow-shared -d 'allow destinations shared with the host'
complete -c oci-bind-hook -l version -d 'print the version'
complete -c oci-bind-hook -l help -d 'print the options'

for each in "$hook" '__fish_seen_subcommand_from gc'
    complete -c oci-bind-hook -n "$each" -l dry-run -d 'change nothing'
    complete -c oci-bind-hook -n "$each" -l keep-mountpoints -d 'never remove mount points'
    complete -c oci-bind-hook -n "$each" -l log -r -F -d 'append a log'
    complete -c oci-bind-hook -n "$each" -l log-format -x -a 'text json'
end
for each in "$hook" '__fish_seen_subcommand_from list show gc'
    complete -c oci-bind-hook -n "$each" -l root -x -a '(__fish_complete_directories)' -d 'where the state files are'
    complete -c oci-bind-hook -n "$each" -l debug -d 'tell each step'
end
for each in "$hook" '__fish_seen_subcommand_from list show gc validate install doctor'
    complete -c oci-bind-hook -n "$each" -l format -x -a 'text json'
end

complete -c oci-bind-hook -n '__fish_seen_subcommand_from show gc' \
    -a '(for each in /run/oci-bind-hook/*.json; path change-extension "" (path basename $each); end)'
complete -c oci-bind-hook -n '__fish_seen_subcommand_from validate' -F
for each in install uninstall
    complete -c oci-bind-hook -n "__fish_seen_subcommand_from $each" -l prefix -x -a '(__fish_complete_directories)'
    complete -c oci-bind-hook -n "__fish_seen_subcommand_from $each" -l hooks-dir -x -a '(__fish_complete_directories)'
end
complete -c oci-bind-hook -n "__fish_seen_subcommand_from $of" -l stages -x -a "$stages" -d 'when it is called'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from $of" -l annotation -x -d 'for containers with KEY=VALUE'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from $of" -l command -x -d 'for those whose command matches'
complete -c oci-bind-hook -n "__fish_seen_subcommand_from $of" -l has-bind-mounts
complete -c oci-bind-hook -n "__fish_seen_subcommand_from $of" -l always
complete -c oci-bind-hook -n "__fish_seen_subcommand_from $of" -l check -d 'explain hooks.d folders'
