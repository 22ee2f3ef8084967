#!/usr/bin/env bash
# Sample texts for calibration, for training and for measuring accuracy, out of Debian's packages, one text a line. Writes:
#
#     FOLDER/texts.txt, held_out.txt           definitions and examples of WordNet 3.0; a synset in 32 is held out, with all its texts
#     FOLDER/pairs.tsv                         pairs of those that are held out, whose order WordNet gives (wordnet_pairs.py)
#     FOLDER/domains/NAME.txt, .held_out.txt   texts of several domains, and of other documents of the same domains
#     FOLDER/other/NAME.txt                    texts of domains that nothing is ever trained on
#     FOLDER/mixed.txt                         as many of each of domains/, for `siskin bert prune --calibrate`
#
# readers.py names the source of each domain and its licence; all are in Debian's main section. No text of domains/NAME.txt shares a
# run of six words with one that is held out or of other/. About 50 MB are downloaded.
#
#     bert/fetch_texts.sh FOLDER             # DOMAINS=no: WordNet alone
#
# Needs apt-get, dpkg (Debian, Ubuntu) and python3; or python3 alone, for WordNet alone: with WORDNET=a folder that has data.noun,
# data.verb, data.adj and data.adv.
set -euo pipefail

folder=${1:?"expected the folder to write to, as in: $0 texts"}
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -n "${WORDNET:-}" ]; then
    DOMAINS=no
fi

# Downloads a package as the user at hand (apt's own may not write to this folder) and unpacks it.
unpack() {
    (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$1" && dpkg -x "$1"_*.deb . && rm "$1"_*.deb)
}

if [ -z "${WORDNET:-}" ]; then
    unpack wordnet-base
    WORDNET=$work/usr/share/wordnet
fi

for kind in noun verb adj adv; do
    # Lines of the licence begin with a space. A synset's line begins with its number and ends with: | definition; "example"; ..
    grep -v '^ ' "$WORDNET/data.$kind" | awk -v held="$work/held" -v rest="$work/rest" '
        function say(text) {
            gsub(/^[ ;:]+|[ ;:]+$/, "", text)
            if (length(text) > 5) print text >> (number % 32 == 0 ? held : rest)
        }
        {
            bar = index($0, "|")
            number++
            gloss = substr($0, bar + 1)
            definition = gloss
            gsub(/"[^"]*"/, "", definition)
            gsub(/([ ]*;)+[ ]*$/, "", definition)
            say(definition)
            while (match(gloss, /"[^"]+"/)) {
                say(substr(gloss, RSTART + 1, RLENGTH - 2))
                gloss = substr(gloss, RSTART + RLENGTH)
            }
        }'
done
mv "$work/rest" "$folder/texts.txt"
mv "$work/held" "$folder/held_out.txt"
python3 "$(dirname "$0")/wordnet_pairs.py" "$WORDNET" "$folder/pairs.tsv"
wc -l "$folder/texts.txt" "$folder/held_out.txt"

if [ "${DOMAINS:-}" != no ]; then
    for package in anarchism debian-faq debian-policy dict-devil dict-foldoc dict-gcide fortunes fortunes-min gnome-user-docs manpages \
        manpages-dev perl-doc r-cran-janeaustenr "$(apt-cache pkgnames | grep -xE 'python3\.[0-9]+-doc' | sort -V | tail -n 1)"; do
        unpack "$package" || echo "no package '$package': a domain will be smaller or left out" >&2
    done
    python3 "$(dirname "$0")/domains.py" "$work" "$folder"
fi
