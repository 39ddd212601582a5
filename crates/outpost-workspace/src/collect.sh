# Gathers an agent's work into one pack of objects. Runs in a sealed sandbox, on a read-only view of the agent's files.
# Arguments: the agent's repository, the directory to write to, the base commit.
# It writes out/status (lines of "<word> <text>", the last one is "end") and, if anything changed, out/result.pack.
# Nothing it says is believed: the host checks the pack by itself.
set -u
umask 022
repo=$1
out=$2/out
git=$2/git
aux=$2/aux
litter=$2/litter
base=$3
# 1 GiB in units of 512 bytes: the host takes no larger pack.
ulimit -f 2097152 2>/dev/null

say() {
    printf '%s\n' "$*" >>"$out/status"
}
finish() {
    say end
    exit 0
}
# It takes names as they are, but refuses to be told so.
ignored() {
    GIT_LITERAL_PATHSPECS=0 git check-ignore -q -- "./$1"
}

if [ -L "$repo" ] || [ ! -d "$repo" ] || ! cd "$repo"; then
    say gone
    finish
fi

# Where the agent's own repository stands. Its settings cannot start anything: the environment overrides them.
head=
if [ -e .git ]; then
    head=$(GIT_DIR=$repo/.git git rev-parse --verify --quiet 'HEAD^{commit}' 2>/dev/null) || head=
    case $head in *[!0-9a-f]*) head= ;; esac
    [ -n "$head" ] || say 'note head_unreadable'
else
    say 'note git_dir_missing'
fi
[ -n "$head" ] || head=$base

# From here on only the fresh repository counts; it borrows the agent's objects.
GIT_DIR=$git
GIT_WORK_TREE=$repo
GIT_LITERAL_PATHSPECS=1
export GIT_DIR GIT_WORK_TREE GIT_LITERAL_PATHSPECS
if [ "$head" != "$base" ] && ! git rev-list --objects --quiet "$head" --not "$base" >/dev/null 2>&1; then
    say 'note commits_unreadable'
    head=$base
fi
rewritten=
if ! git merge-base --is-ancestor "$base" "$head" 2>/dev/null; then
    say 'note history_rewritten'
    rewritten=1
fi

if [ -f .git/info/exclude ]; then
    head -c 65536 .git/info/exclude >"$git/info/exclude"
    echo >>"$git/info/exclude"
fi
# What the agent's program leaves behind by itself is no work of the agent.
[ -f "$litter" ] && cat "$litter" >>"$git/info/exclude"
# New files that no code host takes are left out, and named.
find . -name .git -prune -o -type f -size +102400k -print 2>/dev/null | head -n 1000 >"$out/large"
sed -e 's/[][\\*?!#]/\\&/g' -e 's/ $/\\ /' -e 's/^\.//' "$out/large" >>"$git/info/exclude"

git read-tree "$head" || { say 'failed read-tree'; finish; }
find . -mindepth 2 -name .git -prune -print 2>/dev/null | head -n 100 >"$out/nested"
git add -A --ignore-errors -- . >/dev/null 2>"$out/errors"
added=$?
if [ "$added" -gt 1 ]; then
    # One attribute that cannot be obeyed (an encoding that does not fit) ends git at once: take all files as they are.
    say 'note attributes_ignored'
    GIT_ATTR_SOURCE=$(git mktree </dev/null) git add -A --ignore-errors -- . >/dev/null 2>"$out/errors"
    added=$?
    [ "$added" -le 1 ] || { say 'failed add'; finish; }
fi

# A repository inside the repository would be kept as a mere commit id; its files are taken instead.
while IFS= read -r dotgit; do
    dir=${dotgit%/.git}
    dir=${dir#./}
    case $(git ls-tree "$base" -- "$dir") in 160000*) continue ;; esac
    git update-index --force-remove -- "$dir" 2>/dev/null
    ignored "$dir" && continue
    (
        cd "$dir" || exit 1
        GIT_DIR=$aux GIT_WORK_TREE=$repo/$dir git ls-files -o -z --exclude-standard 2>/dev/null |
            grep -zv '/$' | git update-index --add -z --stdin
    ) && say "note nested_repository $dir"
done <"$out/nested"

# Named only if it stayed out: a tracked file stays tracked however large it grew.
while IFS= read -r file; do
    file=${file#./}
    ignored "$file" && say "note large_file $file"
done <"$out/large"
if [ "$added" != 0 ] && grep -v 'does not have a commit checked out' "$out/errors" | grep -q '^error:'; then
    say "note files_unreadable $(grep '^error:' "$out/errors" | head -n 3 | tr '\n' ';')"
fi

tree=$(git write-tree) || { say 'failed write-tree'; finish; }
result=$head
if [ -n "$rewritten" ]; then
    result=$base
    [ "$tree" = "$(git rev-parse "$base^{tree}")" ] ||
        result=$(echo 'Work of the agent' | git commit-tree "$tree" -p "$base") || { say 'failed commit'; finish; }
elif [ "$tree" != "$(git rev-parse "$head^{tree}")" ]; then
    result=$(echo 'Work left uncommitted by the agent' | git commit-tree "$tree" -p "$head") || { say 'failed commit'; finish; }
fi
if [ "$result" = "$base" ]; then
    say same
    finish
fi
if printf '%s\n^%s\n' "$result" "$base" | git pack-objects -q --revs --stdout >"$out/result.pack" 2>"$out/errors"; then
    say "result $result"
else
    say 'failed pack-objects'
fi
finish
