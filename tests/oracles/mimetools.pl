# Perl MIME-tools and MailTools as a service: a line of base64 in, a line of JSON out, until stdin ends.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use Encode qw(decode);
use JSON::PP;
use Mail::Address;
use MIME::Base64;
use MIME::Parser;
use MIME::WordDecoder qw(mime_to_perl_string);

$| = 1;
my $parser = MIME::Parser->new;
$parser->output_to_core(1);
$parser->tmp_to_core(1);
my $json = JSON::PP->new->utf8->canonical;

# Encoded words, or the UTF-8 of a message that was sent with SMTPUTF8.
sub text {
    my ($octets) = @_;
    return $octets =~ /=\?/ ? mime_to_perl_string($octets) : decode('UTF-8', $octets);
}

sub name {
    my ($phrase) = @_;
    return text($phrase) unless $phrase =~ s/^"(.*)"$/$1/s;
    $phrase =~ s/\\(.)/$1/gs;
    return decode('UTF-8', $phrase);
}

sub mailboxes {
    my ($value) = @_;
    return [] unless defined $value;
    chomp $value;
    return [map { [name($_->phrase), decode('UTF-8', $_->address)] } Mail::Address->parse($value)];
}

sub leaves {
    my ($entity) = @_;
    return map { leaves($_) } $entity->parts if $entity->parts;
    my $head = $entity->head;
    my $disposition = $head->mime_attr('content-disposition') // '';
    my $id = $head->get('content-id');
    $id =~ s/^<|>\s*$//g if defined $id;
    my $body = $entity->bodyhandle->as_string;
    return {
        filename    => $head->recommended_filename,
        type        => $entity->effective_type,
        method      => $head->mime_attr('content-type.method'),
        disposition => length $disposition ? $disposition : undef,
        content_id  => $id,
        sha256      => sha256_hex($body),
        text        => length $disposition ? undef : decode('UTF-8', $body),
    };
}

while (my $line = <STDIN>) {
    my $entity = $parser->parse_data(decode_base64($line));
    my $head = $entity->head;
    $head->unfold;
    my @headers;
    for my $name ($head->tags) {
        push @headers, map { my $v = $_; chomp $v; [lc $name, text($v)] } $head->get_all($name);
    }
    my $subject = $head->get('Subject') // '';
    chomp $subject;
    print $json->encode({
        subject   => text($subject),
        mailboxes => { map { $_ => mailboxes(scalar $head->get($_)) } qw(from sender to cc reply-to) },
        headers   => \@headers,
        leaves    => [leaves($entity)],
    }), "\n";
    $parser->filer->purge;
}
