# SPDX-License-Identifier: Apache-2.0
# fish completion for oci-bind-hook: the program itself says what may stand where.

function __oci_bind_hook
    # The words as they are typed: nothing is expanded.
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command oci-bind-hook completion words -- $words[2..] "$current" 2>/dev/null)
    set -l typed (string sub -s (math (string length -- "$lines[2]") + 1) -- "$current")
    if not string match -q 'words*' -- "$lines[1]"
        # What fish itself offers behind a command that it does not know. Its __fish_complete_path calls ls, to which a
        # file could be an option.
        for path in (complete -C "__oci_bind_hook_files $typed")
            if string match -q 'file*' -- "$lines[1]"; or string match -qr '/(\t|$)' -- "$path"
                printf '%s\n' "$lines[2]$path"
            end
        end
    end
    printf '%s\n' $lines[3..]
end

complete -c oci-bind-hook -f -a '(__oci_bind_hook)'
