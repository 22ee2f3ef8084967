#!/usr/bin/env bash
# Sample texts for calibration and for measuring accuracy: the definitions and examples of WordNet 3.0, from Debian's package
# wordnet-base. Writes FOLDER/texts.txt and FOLDER/held_out.txt, one text a line; a synset in 32 is held out, with all of its texts.
# FOLDER/pairs.tsv has pairs of those that are held out, whose order WordNet gives (wordnet_pairs.py).
#
#     bert/fetch_texts.sh FOLDER
#
# Needs python3, and apt-get and dpkg (Debian, Ubuntu), or WORDNET=a folder that has data.noun, data.verb, data.adj and data.adv.
set -euo pipefail

folder=${1:?"expected the folder to write to, as in: $0 texts"}
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${WORDNET:-}" ]; then
    # Downloads as the user at hand: apt's own may not write to this folder.
    (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" download wordnet-base && dpkg -x wordnet-base_*.deb .)
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
