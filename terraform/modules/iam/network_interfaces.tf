# SageMaker and Lambda reach into the VPC through network interfaces, which they make under the workload's role.

locals {
  # Interface, subnet and security group: creating one touches all three. Lambda refuses a narrower pattern.
  network_resources = "${local.ec2_arn}:*"

  sagemaker_network_interfaces = [
    {
      Sid    = "ManageNetworkInterfaces"
      Effect = "Allow"
      Action = [
        "ec2:CreateNetworkInterface",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteNetworkInterfacePermission",
      ]
      Resource = local.network_resources
    },
    {
      Sid    = "DescribeNetwork"
      Effect = "Allow"
      Action = [
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
      ]
      Resource = "*" # EC2's Describe actions have no resource level.
    },
  ]
}
