resource "aws_s3_bucket" "failing" {
  bucket = "pictures-without-a-policy"
}

# Its objects may be had without TLS: only the bucket is named.
resource "aws_s3_bucket" "failing_half" {
  bucket = "pictures-half"
}

resource "aws_s3_bucket_policy" "half" {
  bucket = aws_s3_bucket.failing_half.id
  policy = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [{
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": "arn:aws:s3:::pictures-half",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}}
      }]
    }
  JSON
}
